//! The network side of probes and hooks: where to connect, and HTTP GET without trust in certificates.

use crate::agent::Shared;
use crate::pod;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mini_pki::AnyCertificate;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// No more of an answer is read.
const BODY_MAX: usize = 10 << 10;

/// One HTTP GET.
pub(crate) struct Target {
    address: String,
    host: String,
    tls: bool,
    path: String,
    headers: Vec<(String, String)>,
}

/// `host:port` of a probe: the pod's address unless it names another.
pub(crate) fn address(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    ips: &[String],
    host: Option<&str>,
    port: &IntOrString,
) -> Result<String, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    let number = number.filter(|n| (1..=65535).contains(n)).ok_or_else(|| format!("invalid port: {port:?}"))?;
    let own = || match ips.first() {
        Some(ip) => Some(ip.clone()),
        None => pod::host_network(pod).then(|| shared.config.node_ip.to_string()),
    };
    let host = match host.filter(|h| !h.is_empty()) {
        Some(host) => host.to_owned(),
        None => own().ok_or("the pod has no address")?,
    };
    Ok(if host.contains(':') { format!("[{host}]:{number}") } else { format!("{host}:{number}") })
}

/// A TCP connection, or the words Go's dialer has for its failure.
pub(super) async fn dial(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(format!("dial tcp {address}: connect: {}", words(&e))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

impl Target {
    pub(crate) fn http(
        shared: &Shared,
        pod: &Pod,
        container: &Container,
        ips: &[String],
        get: &HTTPGetAction,
    ) -> Result<Self, String> {
        let address = address(shared, pod, container, ips, get.host.as_deref(), &get.port)?;
        let path = get.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned());
        let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        Ok(Self {
            host: address.rsplit_once(':').map_or_else(String::new, |(h, _)| h.trim_matches(['[', ']']).to_owned()),
            address,
            tls: get.scheme.as_deref() == Some("HTTPS"),
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers,
        })
    }

    /// Status and body. Redirects are an answer, not followed.
    pub(crate) async fn get(&self, timeout: Duration) -> Result<(u16, Vec<u8>), String> {
        let scheme = if self.tls { "https" } else { "http" };
        let shown = format!("Get \"{scheme}://{}{}\"", self.address, self.path);
        let work = async {
            let stream = dial(&self.address, timeout).await.map_err(|e| format!("{shown}: {e}"))?;
            if self.tls {
                let name = ServerName::try_from(self.host.clone())
                    .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
                let connector = tokio_rustls::TlsConnector::from(trusting());
                let stream = connector.connect(name, stream).await.map_err(|e| format!("{shown}: {e}"))?;
                self.exchange(stream).await
            } else {
                self.exchange(stream).await
            }
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(format!("{shown}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
            }
        }
    }

    async fn exchange<S>(&self, stream: S) -> Result<(u16, Vec<u8>), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        let driver = tokio::spawn(connection);
        let mut request = http::Request::get(&self.path);
        let own = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !own("host") {
            request = request.header("host", &self.address);
        }
        if !own("user-agent") {
            request = request.header("user-agent", "kube-probe/1.37");
        }
        if !own("accept") {
            request = request.header("accept", "*/*");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|e| text(&e))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
            Ok((status, body.map(|b| b.to_bytes().to_vec()).unwrap_or_default()))
        }
        .await;
        driver.abort();
        answer
    }
}

/// A TLS client that takes any certificate: a probe asks for life, not for identity.
fn trusting() -> Arc<rustls::ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    let build = || {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(AnyCertificate::new(Arc::clone(&provider)));
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = match builder.with_safe_default_protocol_versions() {
            Ok(builder) => builder,
            Err(_) => unreachable!("the provider supports the default TLS versions"),
        };
        Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    };
    Arc::clone(CONFIG.get_or_init(build))
}
