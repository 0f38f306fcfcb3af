//! The command's end of the admin socket.

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mini_config::Config;
use mini_config::admin::{Reply, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// How long the server may take over anything but images.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct AdminClient {
    socket: PathBuf,
}

/// Runs a command's conversation with the server.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

impl AdminClient {
    pub(crate) fn new(config: &Config) -> Self {
        Self { socket: config.admin_socket() }
    }

    /// `None` when no server runs.
    pub(crate) async fn status(&self) -> anyhow::Result<Option<Status>> {
        let Some(stream) = self.connect().await? else { return Ok(None) };
        let asked = send(stream, Method::GET, "/status", empty());
        let (code, body) = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => answer,
            // It went away while we asked.
            Ok(Err(_)) if self.connect().await?.is_none() => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("the server at {} does not answer; look at its log", self.socket.display()),
        };
        Ok(Some(understood(code, &body)?))
    }

    /// Sends a request whose answer is JSON.
    pub(crate) async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> anyhow::Result<T> {
        let Some(stream) = self.connect().await? else { bail!("mini is not running; start it with `mini start`") };
        let (code, body) = send(stream, method, path, body).await?;
        understood(code, &body)
    }

    async fn connect(&self) -> anyhow::Result<Option<UnixStream>> {
        match UnixStream::connect(&self.socket).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(anyhow!("you may not speak to {}; use sudo or join the group mini", self.socket.display()))
            }
            Err(error) => Err(error).with_context(|| format!("cannot connect to {}", self.socket.display())),
        }
    }
}

async fn send(stream: UnixStream, method: Method, path: &str, body: Body) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "mini")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)?;
    let answer = sender.send_request(request).await?;
    let code = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((code, body))
}

fn understood<T: DeserializeOwned>(code: StatusCode, body: &[u8]) -> anyhow::Result<T> {
    if code.is_success() {
        return serde_json::from_slice(body).context("the server is of another version; restart it");
    }
    match serde_json::from_slice::<Reply>(body) {
        Ok(reply) => bail!("{}", reply.message),
        Err(_) => bail!("the server answered {code}"),
    }
}

pub(crate) fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}

pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<Body> {
    Ok(Full::from(serde_json::to_vec(value)?).map_err(|never| match never {}).boxed())
}
