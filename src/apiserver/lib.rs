//! The API server: listener, filters, verbs, admission, discovery.
//!
//! The only room that touches the store. A request goes `request_info → authn → audit → authz → RESOURCES lookup → verb`,
//! and one from inside the process takes the same way from just after authn. Invariant: the bytes of a response are the
//! bytes the store holds, unless the client asked for another form.

pub mod admission;
mod allocate;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
mod bootstrap;
pub mod call;
pub mod config;
mod decode;
mod definitions;
mod discovery;
mod expire;
mod flow;
#[cfg(test)]
mod fuzz;
pub mod handler;
pub mod health;
pub mod listener;
pub mod local;
mod managed_fields;
mod metrics;
mod negotiate;
mod object;
mod openapi;
mod options;
mod quota;
mod registry;
pub mod request_info;
pub mod reviews;
pub mod stream;
mod system_objects;
mod table;
pub mod tokens;
pub mod user;
mod verbs;

pub use body::Body;
pub use call::Call;
pub use config::{Config, KubeletClient, ServiceAccounts, TlsFiles};
pub use listener::Listener;
pub use local::LocalService;
pub use registry::Live;
pub use request_info::RequestInfo;
pub use user::UserInfo;

use mini_store::Store;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Writes families of metrics in Prometheus' text format.
pub type MoreMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Why the server cannot start or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: std::net::SocketAddr, source: std::io::Error },
    #[error("cannot read {path}: {source}")]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} holds no usable {what}: {why}")]
    Material { path: std::path::PathBuf, what: &'static str, why: String },
    #[error(transparent)]
    Store(#[from] mini_store::Error),
    #[error("cannot make the system objects: {0}")]
    Bootstrap(mini_api::Status),
}

/// The server. One for each process; everything that serves a request holds it in an `Arc`.
pub struct ApiServer {
    pub config: Config,
    pub store: Store,
    pub registry: Live,
    pub authn: authn::Authenticator,
    pub authz: authz::Authorizer,
    pub(crate) kubelets: stream::Kubelets,
    pub(crate) audit: Option<audit::Audit>,
    pub(crate) flow: flow::FlowControl,
    pub(crate) bodies: Arc<flow::bodies::Bodies>,
    pub(crate) turns: quota::Turns,
    pub(crate) metrics: metrics::Metrics,
    /// What this server cannot know by itself: set by [`Self::observe`].
    pub(crate) components: OnceLock<health::Components>,
    pub(crate) more_metrics: OnceLock<MoreMetrics>,
    pub(crate) documents: openapi::Documents,
    pub(crate) definitions: definitions::Definitions,
    /// The port that is really listened on.
    port: OnceLock<u16>,
    /// True once the system's own objects exist.
    pub(crate) booted: AtomicBool,
    /// Cancelled when the server drains: watches end then.
    pub(crate) draining: CancellationToken,
}

impl ApiServer {
    /// Reads keys and builds the filters. Binds nothing.
    ///
    /// # Errors
    /// A key or certificate file is missing or damaged.
    pub fn new(config: Config, store: Store) -> Result<Arc<Self>, Error> {
        let authn = authn::Authenticator::new(&config, &store)?;
        let authz = authz::Authorizer::new(&store);
        let audit = config.audit.as_ref().map(audit::Audit::new).transpose()?;
        let flow = flow::FlowControl::new(&store);
        let kubelets = stream::Kubelets::new(&config)?;
        Ok(Arc::new(Self {
            config,
            store,
            registry: Live::default(),
            definitions: definitions::Definitions::default(),
            authn,
            authz,
            kubelets,
            audit,
            flow,
            bodies: Arc::default(),
            turns: quota::Turns::default(),
            metrics: metrics::Metrics::default(),
            components: OnceLock::new(),
            more_metrics: OnceLock::new(),
            documents: openapi::Documents::default(),
            port: OnceLock::new(),
            booted: AtomicBool::new(false),
            draining: CancellationToken::new(),
        }))
    }

    /// Binds the address and serves until `cancel`, then drains.
    ///
    /// # Errors
    /// The address cannot be bound, or the serving certificate is damaged.
    pub async fn serve(self: Arc<Self>, cancel: CancellationToken) -> Result<(), Error> {
        Listener::bind(&self.config).await?.run(self, cancel).await
    }

    /// Lets the server tell of the other components of this process: ComponentStatus, and more families of `/metrics`.
    /// The first call counts.
    pub fn observe(&self, components: health::Components, metrics: MoreMetrics) {
        let _ = self.components.set(components);
        let _ = self.more_metrics.set(metrics);
    }

    /// Makes the system objects and the default policy, once. Before it no component of this process may do anything;
    /// [`Listener::run`] does it too. `address` is where the server listens.
    ///
    /// # Errors
    /// The store fails, or an object is refused.
    pub async fn bootstrap(self: &Arc<Self>, address: std::net::SocketAddr) -> Result<(), Error> {
        let _ = self.port.set(address.port());
        if self.booted.load(Ordering::Acquire) {
            return Ok(());
        }
        bootstrap::run(self, address).await
    }

    /// Where clients from outside of the machine find this server.
    pub(crate) fn advertised(&self) -> std::net::SocketAddr {
        let port = self.port.get().copied().unwrap_or_else(|| self.config.listen.port());
        std::net::SocketAddr::new(self.config.advertise, port)
    }

    /// Whether a row is served now: optional ones are while an APIService announces them.
    pub(crate) fn serves(&self, row: &mini_resources::Resource) -> bool {
        let key = || format!("/registry/apiservices.apiregistration.k8s.io/{}.{}", row.version, row.group);
        !row.hooks.optional || self.store.snapshot().get(&key()).is_some()
    }

    /// The rows that are served now.
    pub(crate) fn served(&self) -> mini_resources::Registry {
        self.registry.current().filtered(|row| self.serves(row))
    }

    /// A way in for a component of this process, as `user`: a tower service of which `kube::Client::new` makes a client.
    #[must_use]
    pub fn local(self: &Arc<Self>, user: UserInfo) -> LocalService {
        LocalService::new(self.clone(), user)
    }
}
