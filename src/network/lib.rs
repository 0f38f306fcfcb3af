//! Pod networking of one node: the CNI plugin inside the executable, address management, host ports and the service proxy.
//!
//! Knows pods only as CNI calls and services only through the client's caches; it never talks to the kubelet.
//! Invariant: every thing made on the machine (bridge, nftables tables, sysctls, files) carries the instance's name or is
//! recorded, so that [`teardown`] leaves the machine as it was.

mod address;
pub mod cni;
mod conflist;
mod firewall;
mod ipam;
mod link;
mod nft;
mod ports;
pub mod proxy;
mod sysctl;

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// What every part of this room is derived from.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instance's name, `mini` by default; names the CNI network.
    pub instance: String,
    /// The bridge that pods hang on; at most 15 bytes.
    pub bridge: String,
    /// The nftables table for addresses and host ports; the proxy's table is this with `-services` appended.
    pub table: String,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub node_ip: IpAddr,
    /// Ports of the node's own API and kubelet: no Service takes them, whatever addresses it names.
    pub own_ports: Vec<u16>,
    /// The instance's data directory; this room owns `cni/` and `sysctls.json` in it.
    pub data_dir: PathBuf,
}

impl Config {
    /// The bridge's own address: the first of the pod range, and every pod's gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        address::gateway(self.pod_cidr)
    }

    /// Where containerd finds the plugin.
    #[must_use]
    pub fn cni_bin_dir(&self) -> PathBuf {
        self.data_dir.join("cni/bin")
    }

    /// Where containerd finds the network's configuration.
    #[must_use]
    pub fn cni_conf_dir(&self) -> PathBuf {
        self.data_dir.join("cni/net.d")
    }

    /// Leases of pod addresses.
    fn ipam_dir(&self) -> PathBuf {
        self.data_dir.join("cni/ipam")
    }

    fn sysctl_record(&self) -> PathBuf {
        self.data_dir.join("sysctls.json")
    }
}

/// Longer than a plugin takes from the lease to the interface.
const ADD_TIME: std::time::Duration = std::time::Duration::from_secs(2);

/// Why the node's network could not be set up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error(transparent)]
    Nft(#[from] nft::Error),
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// Prepares the node: sysctls, bridge, routes, base rules, and the CNI configuration that containerd reads.
///
/// Idempotent: what is there and right stays, pods keep their connections, and host ports are put back from the leases.
pub async fn setup(config: &Config) -> Result<(), Error> {
    let links = link::Links::open()?;
    let mtu = links.default_mtu().await?;
    let bridge = links.ensure_bridge(&config.bridge, config.gateway(), config.pod_cidr.prefix_len(), mtu).await?;
    links.ensure_route(config.service_cidr, bridge, config.gateway()).await?;
    sysctl::apply(config)?;
    let present = links.ports_of(bridge).await?;
    let pool = ipam::Pool::new(config.ipam_dir(), config.pod_cidr);
    let (leases, dead): (Vec<_>, Vec<_>) =
        pool.leases()?.into_iter().partition(|(_, lease)| connected(&present, lease));
    if !dead.is_empty() {
        tokio::spawn(async move {
            if let Err(error) = prune(&pool, bridge, dead).await {
                tracing::warn!(%error, "addresses of pods that are gone stay taken");
            }
        });
    }
    nft::apply(nft::base(config, &leases)).await?;
    firewall::open(&config.bridge, &config.instance).await;
    conflist::write(config, mtu)
}

fn connected(present: &[String], lease: &ipam::Lease) -> bool {
    present.contains(&link::veth_name(&lease.container, &lease.interface))
}

/// Gives back the addresses of pods that have no interface: containerd was not there to call DEL.
async fn prune(pool: &ipam::Pool, bridge: u32, dead: Vec<(Ipv4Addr, ipam::Lease)>) -> Result<(), Error> {
    // An ADD under way has its lease a moment before its interface.
    tokio::time::sleep(ADD_TIME).await;
    let present = link::Links::open()?.ports_of(bridge).await?;
    for (address, lease) in dead.into_iter().filter(|(_, lease)| !connected(&present, lease)) {
        tracing::debug!(%address, container = lease.container, "pruning a lease");
        pool.release(address, &lease.container)?;
    }
    Ok(())
}

/// Takes everything of [`setup`], of the plugin and of the proxy off the machine again. Idempotent.
///
/// Goes on after a failure, so that as little as possible is left, and returns the first one.
pub async fn teardown(config: &Config) -> Result<(), Error> {
    let mut first = Ok(());
    let mut keep = |result: Result<(), Error>| {
        if first.is_ok() {
            first = result;
        }
    };
    firewall::close(&config.bridge, &config.instance).await;
    let mut others = false;
    match link::Links::open() {
        Ok(links) => {
            keep(links.delete_bridge_and_ports(&config.bridge).await.map_err(Error::from));
            others = links.any_bridge("mini").await.unwrap_or_default();
        }
        Err(error) => keep(Err(error.into())),
    }
    if nft::path().is_some() {
        for table in [config.table.clone(), proxy::table(config)] {
            keep(nft::apply(format!("add table ip {table}\ndelete table ip {table}\n")).await.map_err(Error::from));
        }
    }
    keep(sysctl::restore(config, others));
    let directory = config.data_dir.join("cni");
    for (path, error) in mini_sys::mounts::remove(&directory) {
        keep(Err(write_error(&path)(error)));
    }
    first
}
