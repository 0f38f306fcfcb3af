//! The kubelet's HTTPS server: logs, exec, attach, port-forward, the pods and what they use, for the API server alone.
//!
//! Invariant: no request is answered without a client certificate of the cluster's CA that names the API server's kubelet
//! client or a cluster administrator.

mod logs;
mod stream;

use crate::agent::Agent;
use crate::stats::{self, Reading};
use crate::{Config, metrics, pod};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_cri::v1::{AttachRequest, ExecRequest};
use k8s_openapi::api::core::v1::Pod;
use mini_client::CancellationToken;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// The API server's name in its client certificate.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const ADMINISTRATORS: &str = "system:masters";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {0}: {1}")]
    Pem(PathBuf, rustls::pki_types::pem::Error),
    #[error("the kubelet's certificates do not work: {0}")]
    Tls(String),
    #[error("the kubelet cannot listen on {0}: {1}; free the port or change kubelet-port")]
    Listen(std::net::SocketAddr, std::io::Error),
}

/// An answer that is an error, as plain text.
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

pub(crate) async fn spawn(config: &Config, agent: Agent, cancel: CancellationToken) -> Result<(), Error> {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(config)?));
    let listener = TcpListener::bind(config.listen).await.map_err(|e| Error::Listen(config.listen, e))?;
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(acceptor.clone(), stream, agent.clone(), cancel.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

fn tls(config: &Config) -> Result<rustls::ServerConfig, Error> {
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| Error::Pem(path.to_owned(), e))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&config.client_ca)? {
        roots.add(certificate).map_err(|e| Error::Tls(e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|e| Error::Tls(e.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_file(&config.serving_key).map_err(|e| Error::Pem(config.serving_key.clone(), e))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&config.serving_cert)?, key)
        .map_err(|e| Error::Tls(e.to_string()))?;
    // Streams are upgraded, which HTTP/2 cannot do.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, stream: TcpStream, agent: Agent, cancel: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        _ => return,
    };
    let allowed = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).is_some_and(may_enter);
    let service = hyper::service::service_fn(move |request| {
        let agent = agent.clone();
        async move {
            if !allowed {
                return Ok(refuse(Refusal(StatusCode::FORBIDDEN, "Forbidden".to_owned())));
            }
            Ok::<_, std::convert::Infallible>(route(&agent, request).await.unwrap_or_else(refuse))
        }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        () = cancel.cancelled() => {}
        outcome = connection => if let Err(error) = outcome {
            tracing::debug!(error, "connection ended");
        },
    }
}

/// CN of the API server's client, or O of the administrators.
fn may_enter(certificate: &CertificateDer<'static>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let subject = parsed.subject();
    subject.iter_common_name().any(|n| n.as_str().is_ok_and(|n| n == API_SERVER))
        || subject.iter_organization().any(|n| n.as_str().is_ok_and(|n| n == ADMINISTRATORS))
}

pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    response
}

fn set_type(response: &mut Response<Body>, content_type: &'static str) {
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, value.to_string());
    set_type(&mut response, "application/json");
    response
}

async fn reading(agent: &Agent) -> Result<Reading, Refusal> {
    agent.shared().stats.read(agent).await.map_err(internal)
}

fn refuse(refusal: Refusal) -> Response<Body> {
    text(refusal.0, refusal.1)
}

/// Decoded query parameters, in order, repeated ones too.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }

    /// `1` and `true`; a stream may go by either of its two names.
    pub(crate) fn on(&self, names: &[&str]) -> bool {
        names.iter().any(|n| matches!(self.get(n), Some("1" | "true")))
    }
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let rest = bytes.clone();
                let digits: Vec<u8> = rest.take(2).collect();
                match std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()) {
                    Some(value) if digits.len() == 2 => {
                        out.push(value);
                        bytes.nth(1);
                    }
                    _ => out.push(b),
                }
            }
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn route(agent: &Agent, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let query = Query::of(request.uri());
    let runtime = agent.shared().runtime.clone();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["healthz"]) => Ok(text(StatusCode::OK, "ok")),
        (&Method::GET, ["pods"] | ["runningpods"]) => {
            let items: Vec<Pod> = agent.pods().iter().map(|p| (**p).clone()).collect();
            Ok(json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
        }
        (&Method::GET, ["stats", "summary"]) => {
            let node = &agent.shared().config.node_name;
            Ok(json(&stats::summary(&reading(agent).await?, node, query.on(&["only_cpu_and_memory"]))))
        }
        (&Method::GET, ["metrics", rest @ ..]) => {
            let shared = agent.shared();
            let page = match rest {
                [] => metrics::kubelet(agent).await.map_err(internal)?,
                ["cadvisor"] => {
                    let cores = std::thread::available_parallelism().map_or(1, usize::from);
                    let memory = u64::try_from(shared.node_memory).unwrap_or_default();
                    metrics::cadvisor(&stats::now(agent).await.map_err(internal)?, cores, memory)
                }
                ["resource"] => stats::resource(&stats::now(agent).await.map_err(internal)?),
                ["probes"] => shared.probes.render(),
                _ => return Err(not_found()),
            };
            let mut response = text(StatusCode::OK, page);
            set_type(&mut response, "text/plain; version=0.0.4; charset=utf-8");
            Ok(response)
        }
        (&Method::GET, ["containerLogs", namespace, name, container]) => {
            let pod = find(agent, namespace, name, None)?;
            logs::answer(agent, &pod, container, &query).await
        }
        (&Method::GET | &Method::POST, ["exec", namespace, name, uid @ .., container]) if uid.len() < 2 => {
            let pod = find(agent, namespace, name, uid.first())?;
            let id = running(agent, &pod, container).await?;
            let tty = query.on(&["tty"]);
            let wanted = ExecRequest {
                container_id: id,
                cmd: query.all("command"),
                tty,
                stdin: query.on(&["input", "stdin"]),
                stdout: query.on(&["output", "stdout"]),
                // A terminal has one output.
                stderr: query.on(&["error", "stderr"]) && !tty,
            };
            let url = runtime.exec(wanted).await.map_err(internal)?;
            stream::pass(request, &url).await
        }
        (&Method::GET | &Method::POST, ["attach", namespace, name, uid @ .., container]) if uid.len() < 2 => {
            let pod = find(agent, namespace, name, uid.first())?;
            let id = running(agent, &pod, container).await?;
            let tty = pod::find_container(&pod, container).is_some_and(|c| c.tty.unwrap_or(false));
            let wanted = AttachRequest {
                container_id: id,
                tty,
                stdin: query.on(&["input", "stdin"]),
                stdout: query.on(&["output", "stdout"]),
                stderr: query.on(&["error", "stderr"]) && !tty,
            };
            let url = runtime.attach(wanted).await.map_err(internal)?;
            stream::pass(request, &url).await
        }
        (&Method::GET | &Method::POST, ["portForward", namespace, name, uid @ ..]) if uid.len() < 2 => {
            let pod = find(agent, namespace, name, uid.first())?;
            let sandboxes = runtime.sandboxes(crate::labels::of_uid(pod::uid(&pod))).await.map_err(internal)?;
            let ready = i32::from(k8s_cri::v1::PodSandboxState::SandboxReady);
            let sandbox = sandboxes
                .into_iter()
                .find(|s| s.state == ready)
                .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod \"{name}\" is not running")))?;
            let url = runtime.port_forward(&sandbox.id).await.map_err(internal)?;
            stream::pass(request, &url).await
        }
        _ => Err(not_found()),
    }
}

fn not_found() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

fn find(agent: &Agent, namespace: &str, name: &str, uid: Option<&&str>) -> Result<Arc<Pod>, Refusal> {
    agent
        .find(namespace, name, uid.copied())
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, "pod does not exist".to_owned()))
}

async fn running(agent: &Agent, pod: &Pod, container: &str) -> Result<String, Refusal> {
    let mut all = containers(agent, pod, container).await?;
    all.retain(|c| c.state == i32::from(k8s_cri::v1::ContainerState::ContainerRunning));
    let missing = || Refusal(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"));
    all.into_iter().next().map(|c| c.id).ok_or_else(missing)
}

/// The containers of a name, newest first.
async fn containers(agent: &Agent, pod: &Pod, name: &str) -> Result<Vec<k8s_cri::v1::Container>, Refusal> {
    let mut labels = crate::labels::of_uid(pod::uid(pod));
    labels.insert(crate::labels::CONTAINER_NAME.to_owned(), name.to_owned());
    let mut all = agent.shared().runtime.containers(labels).await.map_err(internal)?;
    all.sort_by_key(|c| std::cmp::Reverse((c.metadata.as_ref().map_or(0, |m| m.attempt), c.created_at)));
    Ok(all)
}

fn internal(status: tonic::Status) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned())
}

/// The headers that make an upgrade.
pub(crate) fn upgrade_headers(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            matches!(name, "connection" | "upgrade" | "x-stream-protocol-version" | "origin")
                || name.starts_with("sec-websocket-")
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_repeat() {
        let query =
            Query::of(&"/exec/n/p/c?command=sh&command=-c&command=a+b%26%2B%zz&input=1&tty=true".parse().unwrap());
        assert_eq!(query.all("command"), ["sh", "-c", "a b&+%zz"]);
        assert!(query.on(&["stdin", "input"]) && query.on(&["tty"]) && !query.on(&["error"]));
    }
}
