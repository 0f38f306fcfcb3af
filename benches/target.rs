//! An API server and how to speak to it: HTTP/1.1 over TLS, one connection for one caller.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

#[derive(clap::Args, Clone)]
pub(crate) struct Target {
    /// Address and port of the server
    #[arg(long)]
    server: SocketAddr,
    /// PEM files: the CA to trust, and the client's certificate and key
    #[arg(long)]
    ca: PathBuf,
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    #[arg(long)]
    key: Option<PathBuf>,
}

impl Target {
    pub(crate) fn connector(&self) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca)? {
            roots.add(certificate?)?;
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    pub(crate) async fn connect(&self, tls: &TlsConnector) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(self.server).await?;
        tcp.set_nodelay(true)?;
        let stream = tls.connect(ServerName::from(self.server.ip()), tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender })
    }
}

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "bench")
            .header(header::USER_AGENT, "mini-bench")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(body))?;
        Ok(self.sender.send_request(request).await?)
    }

    /// A request that must succeed; the answer's JSON.
    pub(crate) async fn json(&mut self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Bytes::new() } else { serde_json::to_vec(body)?.into() };
        let answer = self.send(method, path, "application/json", body).await?;
        let code = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !code.is_success() {
            bail!("{path}: {code}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).context("the answer is not JSON")
    }
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: Incoming,
    rest: BytesMut,
}

impl Lines {
    pub(crate) fn new(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), rest: BytesMut::new() }
    }

    /// `None` when the stream ends.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        let line = self.text().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    /// The next line as it is.
    pub(crate) async fn text(&mut self) -> anyhow::Result<Option<String>> {
        let mut looked_at = 0;
        loop {
            let new = self.rest.get(looked_at..).unwrap_or_default();
            if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(looked_at + end + 1);
                return Ok(Some(String::from_utf8(line.into())?));
            }
            looked_at = self.rest.len();
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
