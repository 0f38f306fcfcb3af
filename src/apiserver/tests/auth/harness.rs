//! A server with its own directory, certificates and port, and a small client.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use mini_apiserver::{ApiServer, Config, KubeletClient, Listener, ServiceAccounts, TlsFiles};
use mini_pki::{Pair, Pki, Subjects};
use mini_store::Store;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) struct Server {
    pub(crate) pki: Pki,
    pub(crate) address: SocketAddr,
    cancel: CancellationToken,
    _dir: tempfile::TempDir,
}

/// What a request shows.
pub(crate) enum As<'a> {
    Nobody,
    Certificate(&'a Pair),
    Token(&'a str),
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let subjects = Subjects {
            node_name: "n1".into(),
            host_name: "localhost".into(),
            cluster_domain: "cluster.local".into(),
            service_ip: [10, 152, 183, 1].into(),
            node_ips: vec![],
            extra_sans: vec![],
        };
        let pki = Pki::ensure(&dir.path().join("pki"), &subjects).unwrap();
        let tls = |pair: &Pair| TlsFiles { cert: pair.cert.clone(), key: pair.key.clone() };
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: [192, 0, 2, 1].into(),
            tls: tls(&pki.apiserver),
            client_ca: pki.ca.clone(),
            service_account: ServiceAccounts {
                issuer: "https://issuer.test".into(),
                key: pki.service_account.key.clone(),
            },
            service_cidr: "10.152.183.0/24".parse().unwrap(),
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".into(),
            kubelet_client: Some(KubeletClient { tls: tls(&pki.apiserver_kubelet), ca: pki.ca.clone() }),
            static_tokens: Default::default(),
            audit: None,
        };
        change(&mut config);
        let store = Store::open(mini_store::Config::new(dir.path().join("store.db"))).unwrap();
        let server = ApiServer::new(config, store).unwrap();
        let listener = Listener::bind(&server.config).await.unwrap();
        let address = listener.address();
        let cancel = CancellationToken::new();
        tokio::spawn(listener.run(server, cancel.clone()));
        Self { pki, address, cancel, _dir: dir }
    }

    /// A TLS connection.
    pub(crate) async fn connect(&self, who: &As<'_>) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.pki.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(roots);
        let tls = match who {
            As::Certificate(pair) => {
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                tls.with_client_auth_cert(vec![CertificateDer::from_pem_file(&pair.cert).unwrap()], key).unwrap()
            }
            _ => tls.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
    }

    /// One request, its answer not read yet.
    pub(crate) async fn send(
        &self,
        who: As<'_>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Response<Incoming> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect(&who).await)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        let all: &mut HeaderMap = request.headers_mut();
        all.insert("host", HeaderValue::from_str(&self.address.to_string()).unwrap());
        all.insert("content-type", HeaderValue::from_static("application/json"));
        if let As::Token(token) = who {
            all.insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        for (name, value) in headers {
            match *name {
                "content-type" => drop(all.insert("content-type", value.parse().unwrap())),
                name => drop(all.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap())),
            }
        }
        sender.send_request(request).await.unwrap()
    }

    /// The code and the JSON of an answer.
    pub(crate) async fn call(&self, who: As<'_>, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.send(who, method.parse().unwrap(), path, &[], body.as_ref()).await;
        json(answer).await
    }

    /// The same by a user who is allowed only what roles say; a PATCH is a merge patch.
    pub(crate) async fn call_as(&self, user: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = [("impersonate-user", user), ("content-type", kind)];
        json(self.send(self.admin(), method.parse().unwrap(), path, &headers, body.as_ref()).await).await
    }

    /// The same by the kubelet of n1.
    pub(crate) async fn call_as_node(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = [("content-type", kind)];
        json(self.send(self.node(), method.parse().unwrap(), path, &headers, body.as_ref()).await).await
    }

    pub(crate) fn admin(&self) -> As<'_> {
        As::Certificate(&self.pki.admin)
    }

    pub(crate) fn node(&self) -> As<'_> {
        As::Certificate(&self.pki.kubelet_client)
    }

    /// As admin; the object must be accepted.
    pub(crate) async fn create(&self, path: &str, body: Value) -> Value {
        let (code, answer) = self.call(self.admin(), "POST", path, Some(body)).await;
        assert_eq!(code, 201, "{answer}");
        answer
    }
}

pub(crate) async fn json(answer: Response<Incoming>) -> (u16, Value) {
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}
