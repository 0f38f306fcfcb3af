//! The controllers: loops that bring what is nearer to what is wished, one file each, under one driver.
//!
//! They know the API through `mini-client` alone. Invariant: a reconcile takes a key, never an event, may run at any
//! time, and does nothing when all is well.

mod bootstrap_signer;
mod clusterrole_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod driver;
mod endpoint_pods;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
#[cfg(test)]
mod fake;
mod garbage_collector;
mod hpa;
mod job;
mod legacy_token;
mod load_balancer;
mod namespace;
mod node_lifecycle;
mod owner;
mod pod_control;
mod pod_gc;
mod pods;
mod replicaset;
mod revisions;
mod root_ca;
mod served;
mod service_account;
mod signing;
pub mod simulated;
mod stateful_set;
mod storage;
mod taint_eviction;
mod token_cleaner;
mod ttl_after_finished;
mod write;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Node as NodeObject;
use mini_client::{Caches, CancellationToken, Client, Recorder};
use mini_telemetry::Health;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub use legacy_token::{LegacyToken, SignLegacyToken};
pub use signing::{Authority, Signing, Subject};

/// What controllers must be told.
#[derive(Clone)]
pub struct Config {
    /// The certificate authority of the API server, PEM: goes into `kube-root-ca.crt` and token Secrets.
    pub cluster_ca: String,
    /// Signs the token of a Secret of type `kubernetes.io/service-account-token`.
    pub sign_legacy_token: SignLegacyToken,
    /// Signs certificate requests.
    pub authority: Arc<dyn Authority>,
    /// Finished pods beyond this many are deleted, oldest first (upstream's `--terminated-pod-gc-threshold`).
    pub finished_pods: usize,
    /// The machine the controllers run on.
    pub node: Node,
    /// Made-up nodes, where they are wished for.
    pub simulated: Option<simulated::Config>,
}

/// What controllers must know of their own machine.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    /// Where Services of type LoadBalancer answer.
    pub address: IpAddr,
    /// The folder of volumes that are made on the node's own disk; without symbolic links.
    pub volumes: PathBuf,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("finished_pods", &self.finished_pods).finish_non_exhaustive()
    }
}

impl Config {
    /// Upstream's default threshold of finished pods.
    pub const FINISHED_PODS: usize = 12500;
}

/// Starts all controllers. The task ends when `cancel` does.
#[must_use]
pub fn spawn(
    client: Client,
    caches: Caches,
    config: Config,
    health: &Health,
    cancel: CancellationToken,
) -> JoinHandle<()> {
    let component = health.component("controllers");
    component.waiting("for the caches to fill");
    let config = Arc::new(config);
    tokio::spawn(async move {
        let mut running = JoinSet::new();
        let recorder = |component: &str| Recorder::new(client.clone(), component, "");
        let mut syncs = Vec::new();
        macro_rules! start {
            ($controller:expr) => {{
                let (synced, run) = driver::run($controller, cancel.clone());
                syncs.push(synced);
                running.spawn(run);
            }};
        }
        start!(service_account::Controller::new(&client, &caches));
        start!(root_ca::Controller::new(&client, &caches, &config));
        start!(legacy_token::Controller::new(&client, &caches, &config));
        start!(signing::Controller::new(&client, &caches, &config));
        start!(replicaset::sets(&client, &caches, recorder("replicaset-controller")));
        start!(replicaset::replication(&client, &caches, recorder("replication-controller")));
        start!(deployment::Controller::new(&client, &caches, recorder("deployment-controller")));
        start!(job::Controller::new(&client, &caches, recorder("job-controller")));
        start!(cron_job::Controller::new(&client, &caches, recorder("cronjob-controller")));
        start!(ttl_after_finished::Controller::new(&client, &caches));
        start!(daemon_set::Controller::new(&client, &caches, recorder("daemonset-controller")));
        start!(stateful_set::Controller::new(&client, &caches, recorder("statefulset-controller")));
        start!(bootstrap_signer::Controller::new(&client, &caches));
        start!(token_cleaner::Controller::new(&client, &caches));
        start!(hpa::Controller::new(&client, &caches, recorder("horizontal-pod-autoscaler")));
        start!(disruption::Controller::new(&client, &caches, recorder("controllermanager")));
        start!(endpointslice::Controller::new(&client, &caches));
        start!(endpoints::Controller::new(&client, &caches));
        start!(namespace::Controller::new(&client, &caches));
        start!(node_lifecycle::Controller::new(&client, &caches, recorder("node-controller")));
        start!(taint_eviction::Controller::new(&client, &caches, recorder("taint-eviction-controller")));
        start!(endpointslice_mirroring::Controller::new(&client, &caches));
        start!(storage::binder::Controller::new(&client, &caches, recorder("persistentvolume-controller")));
        start!(storage::protection::Controller::new(&client, &caches));
        start!(storage::hostpath::Controller::new(&client, &caches, &config.node, recorder(storage::hostpath::NAME)));
        start!(load_balancer::Controller::new(&client, &caches, &config.node, recorder("service-controller")));
        start!(clusterrole_aggregation::Controller::new(&client, &caches));
        start!(pod_gc::Controller::new(&client, &caches, config.finished_pods));
        if let Some(config) = &config.simulated {
            let fleet = simulated::Fleet::new(config);
            start!(simulated::pods::Controller::new(&fleet, &caches));
            let (sender, registered) = oneshot::channel();
            running.spawn(simulated::nodes::keep(fleet, caches.of::<NodeObject>(), sender, cancel.clone()));
            syncs.push(registered.map(drop).boxed());
        }
        running.spawn(garbage_collector::run(client.clone(), recorder("garbage-collector-controller"), cancel.clone()));
        tokio::select! {
            _ = futures::future::join_all(syncs) => component.ready(),
            () = cancel.cancelled() => {}
        }
        while running.join_next().await.is_some() {}
    })
}
