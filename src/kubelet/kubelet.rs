//! Putting the kubelet together on the real API: pods of this node in, statuses, node and lease out, and the HTTPS server.

use crate::agent::{Agent, Wanted};
use crate::api::ApiCluster;
use crate::cluster::Cluster;
use crate::containerd::Containerd;
use crate::images::Images;
use crate::{Config, node, self_image, server};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use mini_client::{Cache, CancellationToken, Change, Client, Scope};
use mini_telemetry::Component;
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot read from containerd: {0}")]
    Containerd(#[from] tonic::Status),
    #[error("{0}")]
    Server(#[from] server::Error),
}

/// The running kubelet.
#[derive(Clone)]
pub struct Kubelet {
    agent: Agent,
}

impl Kubelet {
    /// Ends every pod on this machine, each with its own grace but at most `most` seconds. Their objects stay, and the next
    /// start runs them again.
    pub async fn stop_all_pods(&self, most: i64) {
        self.agent.stop_all_pods(most).await;
    }

    /// The pods this node runs.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.agent.pods()
    }
}

/// Starts the kubelet as `client` (of the user `system:node:<name>`). Returns once it listens; the node becomes Ready in the
/// background, which `component` tells. `cancel` leaves containers running.
///
/// # Errors
/// When containerd cannot be read or the server cannot listen.
pub async fn spawn(
    client: Client,
    config: Config,
    containerd: &Containerd,
    component: Component,
    cancel: CancellationToken,
) -> Result<Kubelet, SpawnError> {
    component.waiting("for the API server");
    let (wanted, receiver) = mpsc::unbounded_channel();
    let services = Cache::<Service>::spawn(&client, Scope::default(), cancel.clone());
    let fields = Some(format!("metadata.name={}", config.node_name));
    let node = Cache::<Node>::spawn(&client, Scope { fields, ..Scope::default() }, cancel.clone());
    let fields = Some(format!("spec.nodeName={}", config.node_name));
    let pods = Cache::<Pod>::spawn(&client, Scope { fields, ..Scope::default() }, cancel.clone());
    let cluster = Arc::new(ApiCluster::new(
        client.clone(),
        node.clone(),
        services,
        &config.node_name,
        wanted.clone(),
        cancel.clone(),
    ));
    let runtime = containerd.runtime();
    let agent = Agent::spawn(
        config.clone(),
        runtime.clone(),
        Arc::clone(&cluster) as Arc<dyn Cluster>,
        receiver,
        cancel.clone(),
    )
    .await?;
    server::spawn(&config, agent.clone(), cancel.clone()).await?;
    let images = Images::new(runtime.clone(), &config.data_dir);
    tokio::spawn(self_image::retire_others(config.own_image.clone(), images, pods.clone(), cancel.clone()));
    tokio::spawn(feed(pods, node, wanted, cancel.clone()));
    let recorder = cluster.recorder().clone();
    tokio::spawn(node::keep(client, config, runtime, containerd.up(), recorder, component, cancel));
    Ok(Kubelet { agent })
}

/// The API's pods of this node as a stream of wishes.
async fn feed(pods: Cache<Pod>, node: Cache<Node>, wanted: mpsc::UnboundedSender<Wanted>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => return,
        // New pods are admitted by what the node is.
        _ = async { tokio::join!(pods.synced(), node.synced()) } => {}
    }
    let mut changes = pods.subscribe();
    let pass = |change: Change<Pod>| match change {
        Change::Added(pod) | Change::Updated { new: pod, .. } => wanted.send(Wanted::Pod(pod)),
        Change::Deleted(pod) => wanted.send(Wanted::Gone(pod)),
    };
    while let Some(change) = changes.try_next() {
        let _ = pass(change);
    }
    let _ = wanted.send(Wanted::Complete);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            change = changes.next() => match change {
                Some(change) => if pass(change).is_err() { return },
                None => return,
            },
        }
    }
}
