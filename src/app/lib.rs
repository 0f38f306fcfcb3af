//! The composition root: a checked configuration becomes a running node, and a signal drains it.
//!
//! Knows every room and no behaviour.

pub mod teardown;

use mini_config::Config;

/// What is served and reported.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

/// Runs in the foreground until it is told to stop.
///
/// # Errors
/// With one sentence that says what to do, when the node cannot start.
pub fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("this build has no server")
}

fn network_config(config: &Config, node_ip: std::net::IpAddr) -> mini_network::Config {
    mini_network::Config {
        instance: config.instance.id.clone(),
        bridge: config.instance.bridge.clone(),
        table: config.instance.table.clone(),
        pod_cidr: config.pod_cidr,
        service_cidr: config.service_cidr,
        node_ip,
        data_dir: config.data_dir.clone(),
    }
}
