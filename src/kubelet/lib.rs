//! The node agent: turns the pods of one node into containers and tells how they fare.
//!
//! Knows the API only through [`cluster::Cluster`] and containerd only through gRPC. Invariant: level-triggered; one
//! worker per pod UID compares what is wanted with what containerd has, whatever woke it.

pub mod cluster;
pub mod containerd;
pub mod images;
pub mod self_image;

mod admission;
mod agent;
mod api;
mod cgroups;
mod dns;
mod env;
mod events;
mod hooks;
mod kubelet;
mod labels;
mod logs;
mod metrics;
mod node;
mod pod;
mod prober;
mod resources;
mod runtime;
mod security;
mod server;
mod stats;
mod volumes;

pub use agent::{Agent, Wanted};
pub use kubelet::{Kubelet, SpawnError, spawn};
pub use runtime::Runtime;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What the node is told; checked by the caller.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names everything on the machine that must not collide with a second instance.
    pub instance: String,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// The folder in the shape of `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// The folder in the shape of `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    pub pod_cidr: String,
    pub cluster_dns: Option<IpAddr>,
    pub cluster_domain: String,
    /// The image of the running executable; those of others are removed when nothing needs them.
    pub own_image: String,
    /// How many pods the node takes.
    pub max_pods: u16,
    /// Where the HTTPS server listens; port 10250 by custom.
    pub listen: SocketAddr,
    /// PEM files of the serving certificate and its key.
    pub serving_cert: PathBuf,
    pub serving_key: PathBuf,
    /// PEM file of the CA whose client certificates are accepted.
    pub client_ca: PathBuf,
}
