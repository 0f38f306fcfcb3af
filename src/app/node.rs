//! One node's life: build, start in order, run, drain.

use crate::admin::{self, Admin};
use crate::identity;
use anyhow::Context as _;
use mini_apiserver::{ApiServer, KubeletClient, Listener, ServiceAccounts, TlsFiles};
use mini_client::{Caches, CancellationToken};
use mini_config::Config;
use mini_config::admin::{Status, Stop};
use mini_pki::{Pair, Pki, Subjects};
use mini_store::Store;
use mini_telemetry::{Component, Health};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long components may take to end once asked.
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let node_name = config.fix_node_name()?;
    let node_ip = config.node_ip();
    let health = Health::default();
    let board = Board::new(&health);
    let (stop, mut stopping) = watch::channel(None);
    let admin = Arc::new(Admin {
        about: Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes: crate::KUBERNETES_VERSION.to_owned(),
            node: node_name.clone(),
            node_ip: node_ip.to_string(),
            api: config.api_url(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            ..Status::default()
        },
        health: health.clone(),
        images: OnceLock::new(),
        spool: config.data_dir.join("spool"),
        stop,
    });
    let admin_cancel = CancellationToken::new();
    admin::spawn(&config.admin_socket(), admin.clone(), admin_cancel.clone())
        .with_context(|| format!("cannot make the socket {}", config.admin_socket().display()))?;

    let node = Node::start(&config, &node_name, node_ip, &health, &board).await?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let how = until_stopped(&mut stopping).await?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    node.stop(how).await;
    admin_cancel.cancel();
    tokio::task::yield_now().await;
    let _ = std::fs::remove_file(config.admin_socket());
    Ok(())
}

/// A signal leaves pods running, so that an upgrade or a restart of the service does not end them; `mini stop` says what it wants.
async fn until_stopped(stopping: &mut watch::Receiver<Option<Stop>>) -> anyhow::Result<Stop> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(tokio::select! {
        _ = terminate.recv() => Stop { keep_pods: true },
        _ = interrupt.recv() => Stop { keep_pods: true },
        asked = stopping.wait_for(Option::is_some) => asked.ok().and_then(|stop| *stop).unwrap_or_default(),
    })
}

/// The lines of `mini status`, in the order in which things start.
struct Board {
    api: Component,
    scheduler: Component,
    network: Component,
    kubelet: Component,
}

impl Board {
    fn new(health: &Health) -> Self {
        Self {
            api: health.component("apiserver"),
            scheduler: health.component("scheduler"),
            network: health.component("network"),
            kubelet: health.component("kubelet"),
        }
    }
}

fn tls(pair: &Pair) -> TlsFiles {
    TlsFiles { cert: pair.cert.clone(), key: pair.key.clone() }
}

fn apiserver_config(config: &Config, pki: &Pki, node_ip: IpAddr) -> mini_apiserver::Config {
    mini_apiserver::Config {
        listen: config.api_listen(),
        advertise: node_ip,
        tls: tls(&pki.apiserver),
        client_ca: pki.ca.clone(),
        service_account: ServiceAccounts {
            issuer: format!("https://kubernetes.default.svc.{}", config.cluster_domain),
            key: pki.service_account.key.clone(),
        },
        service_cidr: config.service_cidr,
        node_ports: config.node_port_range.clone(),
        cluster_domain: config.cluster_domain.clone(),
        kubelet_client: Some(KubeletClient { tls: tls(&pki.apiserver_kubelet), ca: pki.ca.clone() }),
        static_tokens: std::collections::BTreeMap::default(),
    }
}

/// Everything that runs.
struct Node {
    store: Store,
    /// Components end before the API they speak to.
    components: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    api: CancellationToken,
    serving: JoinHandle<()>,
}

impl Node {
    async fn start(config: &Config, name: &str, ip: IpAddr, health: &Health, board: &Board) -> anyhow::Result<Self> {
        let subjects = Subjects {
            node_name: name.to_owned(),
            host_name: mini_sys::hostname(),
            cluster_domain: config.cluster_domain.clone(),
            service_ip: config.api_service_ip().into(),
            node_ips: vec![ip],
            extra_sans: config.extra_sans.clone(),
        };
        let pki = Pki::ensure(&config.pki_dir(), &subjects)?;
        write_private(&config.admin_kubeconfig(), &pki.admin_kubeconfig(&config.api_url())?)?;
        let store = Store::open(mini_store::Config::new(config.database()))?;
        let server = ApiServer::new(apiserver_config(config, &pki, ip), store.clone())?;
        let listener = Listener::bind(&server.config).await?;
        let (components, api) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, server.clone(), board.api.clone(), api.clone()));
        board.api.ready();

        let mut tasks = Vec::new();
        let manager = identity::client(&server, identity::CONTROLLER_MANAGER, &[]);
        let caches = Caches::new(manager.clone(), components.clone());
        tasks.push(mini_controllers::spawn(
            manager,
            caches.clone(),
            controllers_config(&pki, &server)?,
            health,
            components.clone(),
        ));
        let network = crate::network_config(config, ip);
        tasks.push(tokio::spawn(network_up(
            network,
            identity::client(&server, identity::PROXY, &[]),
            board.network.clone(),
            components.clone(),
        )));
        Ok(Self { store, components, tasks, api, serving })
    }

    /// Components first, then the API, then the store; nothing acknowledged is lost whatever hangs.
    async fn stop(self, how: Stop) {
        tracing::info!(keep_pods = how.keep_pods, "stopping");
        self.components.cancel();
        let all = async {
            for task in self.tasks {
                let _ = task.await;
            }
            self.api.cancel();
            let _ = self.serving.await;
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("something did not end in {DRAIN:?}; going on without it");
        }
        self.store.close().await;
    }
}

async fn serve(listener: Listener, server: Arc<ApiServer>, component: Component, cancel: CancellationToken) {
    if let Err(error) = listener.run(server, cancel).await {
        component.failed(error.to_string());
        tracing::error!(%error, "the API server ended");
    }
}

/// Sets the network up, again and again until the machine lets it, and keeps the service rules.
async fn network_up(
    config: mini_network::Config,
    client: kube::Client,
    component: Component,
    cancel: CancellationToken,
) {
    component.waiting("for the bridge and the base rules");
    let mut pause = Duration::from_millis(200);
    while let Err(error) = mini_network::setup(&config).await {
        component.failed(error.to_string());
        tracing::error!(%error, "cannot set the network up");
        if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
    let caches = Caches::new(client, cancel.clone());
    let _ = mini_network::proxy::spawn(config, caches, component, cancel).await;
}

fn controllers_config(pki: &Pki, server: &Arc<ApiServer>) -> anyhow::Result<mini_controllers::Config> {
    let server = server.clone();
    Ok(mini_controllers::Config {
        cluster_ca: std::fs::read_to_string(&pki.ca).with_context(|| format!("cannot read {}", pki.ca.display()))?,
        sign_legacy_token: Arc::new(move |t| {
            mini_apiserver::tokens::sign_legacy(&server, &t.namespace, &t.account, &t.account_uid, &t.secret)
                .map_err(|status| status.to_string())
        }),
        finished_pods: mini_controllers::Config::FINISHED_PODS,
    })
}

/// A file that only its owner reads, whole or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let draft = path.with_extension("new");
    let write = || {
        let _ = std::fs::remove_file(&draft);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
