//! A server for one test.

use kube::client::Body;
use mini_apiserver::{ApiServer, Config, Listener, ServiceAccounts, TlsFiles, UserInfo};
use mini_store::Store;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";

pub(crate) struct Server {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) store: Store,
    /// As admin, over TLS with a client certificate.
    pub(crate) client: kube::Client,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) dir: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) headers: http::HeaderMap,
}

impl Answer {
    /// Code, reason and message of a failure.
    pub(crate) fn failure(&self) -> (u16, &str, &str) {
        let text = |field: &str| self.body[field].as_str().unwrap_or_default();
        (self.code, text("reason"), text("message"))
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::keeping(Duration::from_secs(300)).await
    }

    /// With so much history: what is older is forgotten with the next write.
    pub(crate) async fn keeping(history: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let subjects = mini_pki::Subjects {
            node_name: "node".to_owned(),
            host_name: "localhost".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            service_ip: "10.152.183.1".parse().unwrap(),
            node_ips: Vec::new(),
            extra_sans: Vec::new(),
        };
        let pki = mini_pki::Pki::ensure(&dir.path().join("pki"), &subjects).unwrap();
        let mut static_tokens = BTreeMap::new();
        static_tokens.insert("secret".to_owned(), UserInfo::new("somebody", &[]));
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: [192, 0, 2, 1].into(),
            tls: TlsFiles { cert: pki.apiserver.cert.clone(), key: pki.apiserver.key.clone() },
            client_ca: pki.ca.clone(),
            service_account: ServiceAccounts {
                issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
                key: pki.service_account.key.clone(),
            },
            service_cidr: "10.152.183.0/24".parse().unwrap(),
            node_ports: 30000..=32767,
            cluster_domain: "cluster.local".to_owned(),
            kubelet_client: None,
            static_tokens,
            audit: None,
        };
        let store = mini_store::Config { history, ..mini_store::Config::new(dir.path().join("store.db")) };
        let store = Store::open(store).unwrap();
        let api = ApiServer::new(config, store.clone()).unwrap();
        let listener = Listener::bind(&api.config).await.unwrap();
        let address = listener.address();
        let cancel = CancellationToken::new();
        let task = tokio::spawn({
            let (api, cancel) = (api.clone(), cancel.clone());
            async move { listener.run(api, cancel).await.unwrap() }
        });
        let kubeconfig = pki.admin_kubeconfig(&format!("https://{address}")).unwrap();
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let server = Self { api, store, client, address, cancel, task, dir };
        // The first answer comes when the system objects are there.
        server.get("/readyz").await;
        // What its controller makes in a whole cluster: pods need it.
        let account = json!({"metadata": {"name": "default"}});
        let made = server.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
        assert_eq!(made.code, 201, "{}", made.body);
        server
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
        self.store.close().await;
        drop(self.dir);
    }

    pub(crate) async fn send(&self, request: http::Request<Body>) -> Answer {
        let response = self.client.send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
        Answer { code: parts.status.as_u16(), body, headers: parts.headers }
    }

    /// As admin, past kube's client, which asks again and again where it is told to come back later.
    pub(crate) async fn once(&self, path: &str, accept: &str) -> Answer {
        let admin = self.api.local(UserInfo::new("admin", &["system:masters"]));
        let request = http::Request::get(path).header("accept", accept);
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let (parts, body) = tower::ServiceExt::oneshot(admin, request).await.unwrap().into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), body: serde_json::from_slice(&bytes).unwrap(), headers: parts.headers }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, JSON, &Value::Null).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = http::Request::get(path).header("accept", accept);
        self.send(request.body(Vec::new().into()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, JSON, body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, JSON, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.call("PATCH", path, MERGE, body).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.call("DELETE", path, JSON, options).await
    }

    /// Starts a watch.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, JSON).await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let request = http::Request::get(path).header("accept", accept).body(Vec::new().into()).unwrap();
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

/// A stream of watch events.
pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event: its type and object. None: the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        use http_body_util::BodyExt;
        let within = std::time::Duration::from_secs(10);
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].take()));
            }
            let frame = tokio::time::timeout(within, self.body.frame()).await.expect("an event within 10 s")?;
            if let Ok(data) = frame.unwrap().into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// The types and names of the next `count` events.
    pub(crate) async fn names(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            let (kind, object) = self.next().await.expect("the stream goes on");
            names.push(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default()));
        }
        names
    }
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
           "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}})
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
