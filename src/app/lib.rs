//! The composition root: a checked configuration becomes a running node, and a signal drains it.
//!
//! Knows every room and no behaviour. Start order: store → API server → identities → caches → controllers, scheduler,
//! network, kubelet. Invariant: the admin socket answers from the first moment on, so that `mini status` can always say
//! what is being waited for.

mod admin;
mod hosts_file;
mod identity;
mod node;
pub mod teardown;

use anyhow::Context as _;
use mini_config::Config;
use std::time::Duration;

/// Runs in the foreground until SIGTERM, SIGINT or a stop over the admin socket.
///
/// # Errors
/// With one sentence that says what to do, when the node cannot start.
pub fn run(config: Config) -> anyhow::Result<()> {
    // A few workers serve a laptop; blocking work (image files, volumes) has threads of its own that end when idle.
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(node::run(config));
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

fn network_config(config: &Config, node_ip: std::net::IpAddr) -> mini_network::Config {
    mini_network::Config {
        instance: config.instance.id.clone(),
        bridge: config.instance.bridge.clone(),
        table: config.instance.table.clone(),
        pod_cidr: config.pod_cidr,
        service_cidr: config.service_cidr,
        node_ip,
        own_ports: vec![config.api_port, config.kubelet_port],
        data_dir: config.data_dir.clone(),
    }
}
