//! What the engine's tests share: facts of a node, and an API server with its controllers in this process.

use super::cluster::{Cluster, Id};
use super::template::Variables;
use super::{Config, Engine, Facts};
use mini_apiserver::{ApiServer, Listener, ServiceAccounts, TlsFiles, UserInfo};
use mini_client::{Caches, CancellationToken, Client};
use mini_config::admin::{Outcome, Step};
use mini_store::Store;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn facts() -> Facts {
    Facts {
        version: "0.1.0".into(),
        cluster_dns: [10, 152, 183, 10].into(),
        cluster_domain: "cluster.local".into(),
        service_cidr: "10.152.183.0/24".into(),
        pod_cidr: "10.1.0.0/16".into(),
        api_address: [10, 152, 183, 1].into(),
        api_port: 16443,
        node_name: "node".into(),
        node_ip: [192, 0, 2, 1].into(),
        data_dir: "/var/lib/mini".into(),
        instance: "mini".into(),
    }
}

pub(crate) fn variables() -> Variables {
    facts().variables("mini.local/mini:1")
}

/// A control plane without a node, and a folder for addons.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) client: Client,
    pub(crate) cancel: CancellationToken,
    pub(crate) store: Store,
    serving: tokio::task::JoinHandle<Result<(), mini_apiserver::Error>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let subjects = mini_pki::Subjects {
            node_name: "node".to_owned(),
            host_name: "localhost".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            service_ip: "10.152.183.1".parse().unwrap(),
            node_ips: Vec::new(),
            extra_sans: Vec::new(),
        };
        let pki = mini_pki::Pki::ensure(&directory.path().join("pki"), &subjects).unwrap();
        let config = mini_apiserver::Config {
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
            static_tokens: std::collections::BTreeMap::default(),
            audit: None,
        };
        let store = Store::open(mini_store::Config::new(directory.path().join("store.db"))).unwrap();
        let server = ApiServer::new(config, store.clone()).unwrap();
        let listener = Listener::bind(&server.config).await.unwrap();
        server.bootstrap(listener.address()).await.unwrap();
        let user = |name: &str, groups: &[&str]| Client::new(server.local(UserInfo::new(name, groups)), "default");
        let cancel = CancellationToken::new();
        // Custom kinds are served by what runs beside the listener.
        let serving = tokio::spawn(listener.run(server.clone(), cancel.clone()));
        let manager = user("system:kube-controller-manager", &[]);
        let caches = Caches::new(manager.clone(), cancel.clone());
        let controllers = mini_controllers::Config {
            cluster_ca: String::new(),
            sign_legacy_token: Arc::new(|_| Err("no tokens here".to_owned())),
            authority: Arc::new(()),
            finished_pods: mini_controllers::Config::FINISHED_PODS,
            simulated: None,
            node: mini_controllers::Node {
                name: "node".to_owned(),
                address: std::net::Ipv4Addr::LOCALHOST.into(),
                volumes: "/nowhere".into(),
            },
        };
        drop(mini_controllers::spawn(manager, caches, controllers, &mini_telemetry::Health::default(), cancel.clone()));
        let client = user("system:mini:addons", &["system:masters"]);
        std::fs::create_dir(directory.path().join("addons")).unwrap();
        Self { directory, client, cancel, store, serving }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.directory.path().join("addons")
    }

    /// An engine as a start makes it.
    pub(crate) fn engine(&self, first: &[&str], image: &str) -> Engine {
        let first = first.iter().map(|name| (*name).to_owned()).collect();
        let config = Config { folder: self.folder(), first, facts: facts() };
        let engine = Engine::new(self.client.clone(), config, self.cancel.clone());
        engine.set_image(image);
        engine
    }

    /// Writes an addon's directory; `more` goes into `addon.yaml`.
    pub(crate) fn put(&self, name: &str, more: &str, manifests: &str) {
        let directory = self.folder().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let about = format!("name: {name}\ndescription: Of a test\nversion: \"1\"\n{more}");
        std::fs::write(directory.join("addon.yaml"), about).unwrap();
        std::fs::write(directory.join("manifests.yaml"), manifests).unwrap();
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(self.client.clone())
    }

    pub(crate) async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let api_version = if kind == "Widget" { "g.io/v1" } else { "v1" };
        let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
        self.cluster().get(&Id::new(api_version, kind, namespace, name)).await.unwrap()
    }

    pub(crate) async fn make(&self, kind: &str, namespace: &str, name: &str, labels: Value) {
        let meta = json!({"name": name, "namespace": namespace, "labels": labels});
        self.cluster().create(&json!({"apiVersion": "v1", "kind": kind, "metadata": meta})).await.unwrap();
    }

    /// The store's revision: it stands still when nothing is written.
    pub(crate) async fn revision(&self) -> String {
        self.client.request::<Value>(http::Request::get("/api/v1/namespaces").body(Vec::new()).unwrap()).await.unwrap()
            ["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) async fn end(self) {
        self.cancel.cancel();
        self.serving.await.unwrap().unwrap();
        self.store.close().await;
    }
}

/// All steps until the operation ends.
pub(crate) async fn told(mut steps: tokio::sync::mpsc::UnboundedReceiver<Step>) -> Vec<Step> {
    let mut all = Vec::new();
    while let Some(step) = tokio::time::timeout(Duration::from_secs(60), steps.recv()).await.unwrap() {
        all.push(step);
    }
    all
}

/// Steps as lines; those that failed begin with "!".
pub(crate) fn lines(steps: &[Step]) -> Vec<String> {
    let line = |step: &Step| {
        let sign = if step.outcome == Outcome::Failed { "!" } else { "" };
        format!("{sign}{}: {}", step.addon, step.text)
    };
    steps.iter().map(line).collect()
}
