//! One node's life: build, start in order, run, drain.

use crate::admin::{self, Admin};
use crate::identity;
use anyhow::Context as _;
use mini_addons::engine::{self, Engine};
use mini_apiserver::{ApiServer, KubeletClient, Listener, ServiceAccounts, TlsFiles, audit};
use mini_client::{Caches, CancellationToken};
use mini_config::Config;
use mini_config::admin::{Status, Stop};
use mini_kubelet::Kubelet;
use mini_kubelet::containerd::{self, Containerd};
use mini_kubelet::images::Images;
use mini_kubelet::self_image::SelfImage;
use mini_pki::{Pair, Pki, Signer, Subjects};
use mini_store::Store;
use mini_telemetry::{Component, Health, State};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// How long components may take to end once asked.
const DRAIN: Duration = Duration::from_secs(10);
/// Seconds that a pod gets at most to end when the node stops, whatever grace it asks for.
const MOST_GRACE: u32 = 30;

pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let node_name = config.fix_node_name()?;
    let node_ip = config.node_ip();
    let health = Health::default();
    let board = Board::new(&health, config.api_only);
    let (stop, mut stopping) = watch::channel(None);
    let admin = Arc::new(Admin {
        about: Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kubernetes: mini_api::KUBERNETES_VERSION.to_owned(),
            node: node_name.clone(),
            node_ip: node_ip.to_string(),
            api: config.api_url(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            ..Status::default()
        },
        health: health.clone(),
        images: OnceLock::new(),
        own_image: OnceLock::new(),
        addons: OnceLock::new(),
        kubeconfig: config.admin_kubeconfig(),
        spool: config.data_dir.join("spool"),
        stop,
    });
    let admin_cancel = CancellationToken::new();
    admin::spawn(&config.admin_socket(), admin.clone(), admin_cancel.clone())
        .with_context(|| format!("cannot make the socket {}", config.admin_socket().display()))?;

    let node = Node::start(&config, &node_name, node_ip, &health, board, &admin).await?;
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
    /// Network and kubelet, where there are any.
    machine: Option<(Component, Component)>,
}

impl Board {
    fn new(health: &Health, api_only: bool) -> Self {
        Self {
            api: health.component("apiserver"),
            scheduler: health.component("scheduler"),
            machine: (!api_only).then(|| (health.component("network"), health.component("kubelet"))),
        }
    }
}

/// What `kubectl get componentstatuses` says of the components that are threads of this process.
fn control_plane(health: &Health) -> Vec<mini_apiserver::health::Component> {
    let lines = health.snapshot();
    [("controller-manager", "controllers"), ("scheduler", "scheduler")]
        .into_iter()
        .map(|(name, ours)| {
            let failure = match lines.iter().find(|line| line.name == ours).map(|line| &line.state) {
                Some(State::Ready) => None,
                Some(State::Waiting(what)) => Some(format!("waiting {what}")),
                Some(State::Failed(why)) => Some(why.clone()),
                None => Some("not started".to_owned()),
            };
            (name.to_owned(), failure)
        })
        .collect()
}

fn tls(pair: &Pair) -> TlsFiles {
    TlsFiles { cert: pair.cert.clone(), key: pair.key.clone() }
}

fn apiserver_config(config: &Config, pki: &Pki, node_ip: IpAddr) -> anyhow::Result<mini_apiserver::Config> {
    let tokens = config.token_auth_file.as_deref().map(mini_apiserver::authn::token_file::read).transpose()?;
    Ok(mini_apiserver::Config {
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
        static_tokens: tokens.unwrap_or_default(),
        audit: config.audit_policy_file.clone().map(|policy| audit::Settings {
            policy,
            log: audit::LogFile {
                path: config.audit_log(),
                max_bytes: u64::from(config.audit_log_maxsize) << 20,
                max_age: Duration::from_secs(u64::from(config.audit_log_maxage) * 24 * 3600),
                max_backups: config.audit_log_maxbackup,
            },
        }),
    })
}

/// Everything that runs.
struct Node {
    store: Store,
    /// Components end before the API they speak to.
    components: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    machine: JoinHandle<()>,
    /// What `machine` got running, for the stop.
    running: Arc<Mutex<Running>>,
    api: CancellationToken,
    serving: JoinHandle<()>,
}

/// The parts that outlive `mini` unless they are told to end.
#[derive(Default)]
struct Running {
    containerd: Option<Containerd>,
    kubelet: Option<Kubelet>,
}

impl Node {
    async fn start(
        config: &Config,
        name: &str,
        ip: IpAddr,
        health: &Health,
        board: Board,
        admin: &Arc<Admin>,
    ) -> anyhow::Result<Self> {
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
        let server = ApiServer::new(apiserver_config(config, &pki, ip)?, store.clone())?;
        let listener = Listener::bind(&server.config).await?;
        // Components act under RBAC: its default policy has to be there before the first of them asks.
        server.bootstrap(listener.address()).await?;
        let (components, api) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, server.clone(), board.api.clone(), api.clone()));
        board.api.ready();
        let health_board = health.clone();
        server.observe(Arc::new(move || control_plane(&health_board)), Arc::new(String::new));

        let manager = identity::client(&server, identity::CONTROLLER_MANAGER, &[]);
        let caches = Caches::new(manager.clone(), components.clone());
        let controllers = controllers_config(config, &pki, &server, name, ip)?;
        let scheduler = identity::client(&server, identity::SCHEDULER, &[]);
        let tasks = vec![
            mini_controllers::spawn(manager, caches.clone(), controllers, health, components.clone()),
            mini_scheduler::spawn(scheduler, caches.clone(), board.scheduler, components.clone()),
        ];
        let (user, groups) = identity::ADDONS;
        let addons = identity::client(&server, user, groups);
        let addons = Engine::new(addons, addons_config(config, name, ip), components.clone());
        let _ = admin.addons.set(addons.clone());
        addons.resume();
        let running = Arc::<Mutex<Running>>::default();
        let machine = match board.machine {
            None => tokio::spawn(std::future::ready(())),
            Some((network_line, kubelet_line)) => tokio::spawn(
                Machine {
                    network: crate::network_config(config, ip),
                    kubelet: kubelet_config(config, &pki, name, ip),
                    containerd: config.containerd_path()?,
                    client: identity::kubelet(&server, name),
                    caches,
                    network_line,
                    kubelet_line,
                    admin: admin.clone(),
                    addons,
                    running: running.clone(),
                    cancel: components.clone(),
                }
                .run(),
            ),
        };
        Ok(Self { store, components, tasks, machine, running, api, serving })
    }

    /// Pods first, while the API can still be told of their end; then components, the API and the store. Nothing
    /// acknowledged is lost, whatever hangs.
    async fn stop(self, how: Stop) {
        tracing::info!(keep_pods = how.keep_pods, "stopping");
        let running = std::mem::take(&mut *self.running.lock().await);
        if !how.keep_pods
            && let Some(kubelet) = &running.kubelet
        {
            // Bounded: what containerd cannot end, the teardown of a reset or the next start deals with.
            let most = Duration::from_secs(MOST_GRACE.into()) + DRAIN;
            if tokio::time::timeout(most, kubelet.stop_all_pods(MOST_GRACE.into())).await.is_err() {
                tracing::warn!("some pods did not end within their grace; going on without them");
            }
        }
        self.components.cancel();
        self.machine.abort();
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
        if !how.keep_pods
            && let Some(containerd) = &running.containerd
        {
            containerd.stop().await;
        }
    }
}

/// The half of the node that touches the machine: it is set up while the API serves already, and again until it works.
struct Machine {
    network: mini_network::Config,
    kubelet: mini_kubelet::Config,
    containerd: PathBuf,
    client: kube::Client,
    caches: Caches,
    network_line: Component,
    kubelet_line: Component,
    admin: Arc<Admin>,
    addons: Engine,
    running: Arc<Mutex<Running>>,
    cancel: CancellationToken,
}

impl Machine {
    async fn run(self) {
        self.network_line.waiting("for the bridge and the base rules");
        self.kubelet_line.waiting("for containerd to answer on its socket");
        tokio::join!(self.network(), self.kubelet());
    }

    async fn network(&self) {
        let up = || async { mini_network::setup(&self.network).await.map_err(anyhow::Error::from) };
        if until_it_works(&self.network_line, &self.cancel, up).await.is_some() {
            let (config, caches, line) = (self.network.clone(), self.caches.clone(), self.network_line.clone());
            let _ = mini_network::proxy::spawn(config, caches, line, self.cancel.clone()).await;
        }
    }

    async fn kubelet(&self) {
        until_it_works(&self.kubelet_line, &self.cancel, || self.start_kubelet()).await;
    }

    async fn start_kubelet(&self) -> anyhow::Result<()> {
        let executable = std::env::current_exe().context("cannot find the running executable")?;
        let data_dir = self.kubelet.data_dir.clone();
        // At the first start of a new executable all of it is read.
        let image = tokio::task::spawn_blocking(move || {
            SelfImage::of(&executable, &data_dir).with_context(|| format!("cannot read {}", executable.display()))
        })
        .await??;
        crate::hosts_file::ensure().context("pods need /etc/hosts, and it cannot be made")?;
        self.addons.set_image(&image.name);
        let known = self.running.lock().await.containerd.clone();
        let containerd = match known {
            Some(containerd) => containerd,
            None => Containerd::spawn(self.containerd_config(&image), self.cancel.clone()).await?,
        };
        self.running.lock().await.containerd = Some(containerd.clone());
        let images = Images::new(containerd.runtime(), &self.kubelet.data_dir);
        image.ensure(&images).await?;
        let _ = self.admin.own_image.set(image.name.clone());
        let _ = self.admin.images.set(images);
        let line = self.kubelet_line.clone();
        let config = mini_kubelet::Config { own_image: image.name, ..self.kubelet.clone() };
        let kubelet = mini_kubelet::spawn(self.client.clone(), config, &containerd, line, self.cancel.clone()).await?;
        self.running.lock().await.kubelet = Some(kubelet);
        Ok(())
    }

    fn containerd_config(&self, image: &SelfImage) -> containerd::Config {
        containerd::Config {
            binary: Some(self.containerd.clone()),
            data_dir: self.kubelet.data_dir.clone(),
            run_dir: self.kubelet.run_dir.clone(),
            sandbox_image: image.name.clone(),
            cni_bin_dir: self.network.cni_bin_dir(),
            cni_conf_dir: self.network.cni_conf_dir(),
        }
    }
}

/// Tries again with growing pauses, saying on the board why it does not work yet. `None` when cancelled.
async fn until_it_works<T, F: Future<Output = anyhow::Result<T>>>(
    line: &Component,
    cancel: &CancellationToken,
    work: impl Fn() -> F,
) -> Option<T> {
    let mut pause = Duration::from_millis(200);
    loop {
        match cancel.run_until_cancelled(work()).await? {
            Ok(done) => return Some(done),
            Err(error) => {
                tracing::error!("{error:#}");
                line.failed(format!("{error:#}"));
            }
        }
        cancel.run_until_cancelled(tokio::time::sleep(pause)).await?;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

fn addons_config(config: &Config, node_name: &str, node_ip: IpAddr) -> engine::Config {
    engine::Config {
        folder: config.addons_dir.clone(),
        first: config.addons.clone(),
        facts: engine::Facts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_dns: config.cluster_dns.into(),
            cluster_domain: config.cluster_domain.clone(),
            service_cidr: config.service_cidr.to_string(),
            pod_cidr: config.pod_cidr.to_string(),
            api_address: config.api_service_ip().into(),
            api_port: config.api_port,
            node_name: node_name.to_owned(),
            node_ip,
            data_dir: config.data_dir.clone(),
            instance: config.instance.id.clone(),
        },
    }
}

fn kubelet_config(config: &Config, pki: &Pki, node_name: &str, node_ip: IpAddr) -> mini_kubelet::Config {
    mini_kubelet::Config {
        instance: config.instance.id.clone(),
        node_name: node_name.to_owned(),
        node_ip,
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        root_dir: config.kubelet_dir(),
        pod_logs_dir: config.pod_logs_dir(),
        pod_cidr: config.pod_cidr.to_string(),
        own_image: String::new(),
        cluster_dns: Some(config.cluster_dns.into()),
        cluster_domain: config.cluster_domain.clone(),
        // The API server comes to the node's address; an API that listens on one address only does not change that.
        listen: SocketAddr::new(
            if config.api_address.is_unspecified() { config.api_address } else { node_ip },
            config.kubelet_port,
        ),
        max_pods: config.max_pods,
        serving_cert: pki.kubelet_server.cert.clone(),
        serving_key: pki.kubelet_server.key.clone(),
        client_ca: pki.ca.clone(),
    }
}

async fn serve(listener: Listener, server: Arc<ApiServer>, component: Component, cancel: CancellationToken) {
    if let Err(error) = listener.run(server, cancel).await {
        component.failed(error.to_string());
        tracing::error!(%error, "the API server ended");
    }
}

fn controllers_config(
    config: &Config,
    pki: &Pki,
    server: &Arc<ApiServer>,
    name: &str,
    address: IpAddr,
) -> anyhow::Result<mini_controllers::Config> {
    let signer = server.clone();
    // Kubelet and provisioner compare paths, and follow no link.
    let data_dir = std::fs::canonicalize(&config.data_dir)
        .with_context(|| format!("cannot resolve {}", config.data_dir.display()))?;
    Ok(mini_controllers::Config {
        cluster_ca: std::fs::read_to_string(&pki.ca).with_context(|| format!("cannot read {}", pki.ca.display()))?,
        sign_legacy_token: Arc::new(move |t| {
            mini_apiserver::tokens::sign_legacy(&signer, &t.namespace, &t.account, &t.account_uid, &t.secret)
                .map_err(|status| status.to_string())
        }),
        authority: Arc::new(Authority(Signer::load(pki)?)),
        finished_pods: mini_controllers::Config::FINISHED_PODS,
        node: mini_controllers::Node { name: name.to_owned(), address, volumes: data_dir.join("storage") },
        simulated: (config.fake_nodes > 0).then(|| simulated(config, server)),
    })
}

fn simulated(config: &Config, server: &Arc<ApiServer>) -> mini_controllers::simulated::Config {
    let server = server.clone();
    mini_controllers::simulated::Config {
        nodes: config.fake_nodes,
        pods: config.max_pods,
        client_of: Arc::new(move |name| identity::kubelet(&server, name)),
    }
}

/// The cluster's authority, as the controllers ask for it.
struct Authority(Signer);

impl mini_controllers::Authority for Authority {
    fn subject(&self, request: &[u8]) -> Result<mini_controllers::Subject, String> {
        let read = mini_pki::Request::read(request)?;
        Ok(mini_controllers::Subject {
            common_name: read.common_name,
            organizations: read.organizations,
            dns_names: read.dns_names,
            addresses: read.addresses,
            emails: read.emails,
            uris: read.uris,
        })
    }

    fn sign(&self, signing: &mini_controllers::Signing) -> Result<String, String> {
        let usages: Vec<&str> = signing.usages.iter().map(String::as_str).collect();
        self.0.sign(&mini_pki::Request::read(&signing.request)?, &usages, signing.life)
    }
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
