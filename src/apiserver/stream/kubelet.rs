//! Talking to kubelets: HTTPS with a client certificate, one connection for each request.

use crate::body::{Body, full};
use crate::{ApiServer, Config, Error};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mini_api::{Meta, Status, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DEFAULT_PORT: u16 = 10250;
const CONNECT: Duration = Duration::from_secs(10);
/// As much as is read of what a kubelet measured.
const SUMMARY: usize = 16 << 20;

/// A kubelet's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl Endpoint {
    /// As the node's status says. Names are not resolved: only addresses count.
    pub(super) fn of(server: &ApiServer, node: &str) -> Result<Self, Status> {
        let entry = server.store.snapshot().get(&format!("/registry/nodes/{node}"));
        let entry = entry.ok_or_else(|| Status::not_found("", "nodes", node))?;
        let object: Value = serde_json::from_slice(&entry.bytes).map_err(Status::internal)?;
        if object.text(&["status", "nodeInfo", "containerRuntimeVersion"]).starts_with("simulated://") {
            let why =
                format!("node {node} is simulated: its pods run in name only, and nothing of theirs can be reached");
            return Err(Status::bad_request(why));
        }
        Self::parse(&object).ok_or_else(|| {
            Status::internal(format!("node {node} has no address at which its kubelet could be reached"))
        })
    }

    fn parse(node: &Value) -> Option<Self> {
        let addresses = node.pointer("/status/addresses").and_then(Value::as_array)?;
        let of_type = |wanted: &str| {
            let mut matching = addresses.iter().filter(|a| a.text(&["type"]) == wanted);
            matching.find_map(|a| a.text(&["address"]).parse::<IpAddr>().ok())
        };
        let address = of_type("InternalIP").or_else(|| of_type("ExternalIP"))?;
        let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(DEFAULT_PORT);
        Some(Self { address, port })
    }

    fn socket(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What a node and its pods use: the kubelet's `/stats/summary`.
pub(crate) async fn summary(server: &ApiServer, node: &str) -> Result<Value, Status> {
    let kubelet = Endpoint::of(server, node)?;
    let path = "/stats/summary?only_cpu_and_memory=true";
    let answer = server.kubelets.call(kubelet, Method::GET, path, HeaderMap::new()).await?;
    let code = answer.status();
    let body = Limited::new(answer.into_body(), SUMMARY).collect().await.map_err(Status::internal)?.to_bytes();
    if !code.is_success() {
        return Err(Status::internal(format!("the kubelet answers {code}: {}", String::from_utf8_lossy(&body))));
    }
    serde_json::from_slice(&body).map_err(Status::internal)
}

/// What is needed to reach any kubelet.
pub(crate) struct Kubelets {
    tls: Option<TlsConnector>,
}

impl Kubelets {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let Some(client) = &config.kubelet_client else { return Ok(Self { tls: None }) };
        let damaged = |path: &Path, what, why: String| Error::Material { path: path.to_owned(), what, why };
        let chain = |path: &Path, what| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|e| damaged(path, what, e.to_string()))
        };
        let mut roots = RootCertStore::empty();
        for certificate in chain(&client.ca, "kubelet CA")? {
            roots.add(certificate).map_err(|e| damaged(&client.ca, "kubelet CA", e.to_string()))?;
        }
        let key = PrivateKeyDer::from_pem_file(&client.tls.key)
            .map_err(|e| damaged(&client.tls.key, "key", e.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| damaged(&client.tls.cert, "certificate", e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain(&client.tls.cert, "certificate")?, key)
            .map_err(|e| damaged(&client.tls.cert, "certificate", e.to_string()))?;
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(tls))) })
    }

    /// A request without a body. The connection lives as long as the response, or what it is upgraded to.
    pub(super) async fn call(
        &self,
        to: Endpoint,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Status> {
        let mut request = Request::new(full(""));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(Status::internal)?;
        *request.headers_mut() = headers;
        self.send(to, request).await
    }

    pub(super) async fn send(&self, to: Endpoint, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let failed = |why: String| Status::internal(format!("error dialing backend: {why}"));
        let Some(tls) = &self.tls else {
            return Err(Status::new(mini_api::Reason::ServiceUnavailable, "this server has no way to reach kubelets"));
        };
        let connect = async {
            let tcp = TcpStream::connect(to.socket()).await?;
            tcp.set_nodelay(true)?;
            tls.connect(ServerName::IpAddress(to.address.into()), tcp).await
        };
        let stream = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| failed(format!("dial tcp {}: i/o timeout", to.socket())))?
            .map_err(|e| failed(format!("dial tcp {}: {e}", to.socket())))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a kubelet ended");
            }
        });
        let host = HeaderValue::from_str(&to.socket().to_string()).map_err(Status::internal)?;
        request.headers_mut().insert(header::HOST, host);
        sender.send_request(request).await.map_err(|e| failed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_internal_address_counts() {
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "198.51.100.1"},
            {"type": "InternalIP", "address": "192.0.2.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}});
        let endpoint = Endpoint::parse(&node).unwrap();
        assert_eq!((endpoint.address.to_string().as_str(), endpoint.port), ("192.0.2.1", 10251));
        assert_eq!(Endpoint::parse(&json!({"status": {"addresses": []}})), None);
    }
}
