//! The command's end of the admin socket.

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mini_config::Config;
use mini_config::admin::{Addons, Reply, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// How long the server may take over anything but images.
const PATIENCE: Duration = Duration::from_secs(10);

const NOT_RUNNING: &str = "mini is not running; start it with `mini start`";
const OTHER_VERSION: &str = "the server is of another version; restart it";

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

    /// Those of a server whose API is up.
    pub(crate) async fn addons(&self) -> anyhow::Result<Addons> {
        self.call(Method::GET, "/addons", empty()).await
    }

    /// Sends a request whose answer is JSON.
    pub(crate) async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body) -> anyhow::Result<T> {
        let Some(stream) = self.connect().await? else { bail!(NOT_RUNNING) };
        let (code, body) = send(stream, method, path, body).await?;
        understood(code, &body)
    }

    /// Sends a request whose answer is lines of JSON, and takes them as they come.
    pub(crate) async fn stream<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        mut take: impl FnMut(T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(stream) = self.connect().await? else { bail!(NOT_RUNNING) };
        let answer = request(stream, method, path, body).await?;
        let code = answer.status();
        let mut body = answer.into_body();
        if !code.is_success() {
            return understood::<()>(code, &body.collect().await?.to_bytes());
        }
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the server ended in the middle of it; `mini status` shows how far it came")?;
            buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                take(serde_json::from_slice(&line).context(OTHER_VERSION)?)?;
            }
        }
        Ok(())
    }

    /// The administrator's kubeconfig; `None` when no server runs.
    pub(crate) async fn kubeconfig(&self) -> anyhow::Result<Option<Bytes>> {
        let Some(stream) = self.connect().await? else { return Ok(None) };
        let (code, body) = send(stream, Method::GET, "/kubeconfig", empty()).await?;
        if code.is_success() { Ok(Some(body)) } else { understood::<()>(code, &body).map(|()| None) }
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
    let answer = request(stream, method, path, body).await?;
    let code = answer.status();
    Ok((code, answer.into_body().collect().await?.to_bytes()))
}

async fn request(stream: UnixStream, method: Method, path: &str, body: Body) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "mini")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)?;
    Ok(sender.send_request(request).await?)
}

fn understood<T: DeserializeOwned>(code: StatusCode, body: &[u8]) -> anyhow::Result<T> {
    if code.is_success() {
        return serde_json::from_slice(body).context(OTHER_VERSION);
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
