//! Simulated nodes: made-up machines whose pods run in name only, for tests of operators and for measuring.
//!
//! Each speaks to the API as the kubelet of its node would, under that node's identity. It knows no machine and no other
//! node. Invariant: what a pod is told to be depends on its object and the time alone.

pub(crate) mod nodes;
pub(crate) mod pods;
mod status;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;
use mini_client::Client;
use parking_lot::Mutex;

/// As many as there are networks of pods for.
pub const MOST: usize = 5000;
/// A node's pods have addresses in a network of this many of their own.
const SHARE: u32 = 256;
/// Addresses of nodes: a network that is set aside for measurements.
const NODES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Addresses of pods: a network that no machine of the outside has.
const PODS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const PREFIX: &str = "fake-";

/// What the simulation must be told.
#[derive(Clone)]
pub struct Config {
    /// How many nodes, `MOST` at most.
    pub nodes: usize,
    /// How many pods each takes.
    pub pods: u16,
    /// The client of a node's kubelet, by the node's name.
    pub client_of: Arc<dyn Fn(&str) -> Client + Send + Sync>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("nodes", &self.nodes).field("pods", &self.pods).finish_non_exhaustive()
    }
}

/// All simulated nodes, by number from 1. Clones are the same fleet.
#[derive(Clone)]
pub(crate) struct Fleet(Arc<Inner>);

struct Inner {
    config: Config,
    clients: Vec<OnceLock<Client>>,
}

impl Fleet {
    pub(crate) fn new(config: &Config) -> Self {
        let nodes = config.nodes.min(MOST);
        let config = Config { nodes, pods: config.pods.min(254), ..config.clone() };
        Self(Arc::new(Inner { config, clients: (0..nodes).map(|_| OnceLock::new()).collect() }))
    }

    fn numbers(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.0.config.nodes
    }

    /// The number of a node, if it is one of ours.
    fn number(&self, name: &str) -> Option<usize> {
        let number = name.strip_prefix(PREFIX)?.parse().ok()?;
        (self.numbers().contains(&number) && node_name(number) == name).then_some(number)
    }

    /// The client of a node's kubelet.
    fn client(&self, number: usize) -> Option<Client> {
        let slot = self.0.clients.get(number.checked_sub(1)?)?;
        Some(slot.get_or_init(|| (self.0.config.client_of)(&node_name(number))).clone())
    }
}

fn node_name(number: usize) -> String {
    format!("{PREFIX}{number}")
}

fn offset(base: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base).saturating_add(by))
}

fn host_address(number: usize) -> Ipv4Addr {
    offset(NODES, u32::try_from(number).unwrap_or_default())
}

/// The network of a node's pods.
fn pod_network(number: usize) -> Ipv4Addr {
    offset(PODS, u32::try_from(number).unwrap_or_default() * SHARE)
}

/// Which pod has which address.
#[derive(Default)]
struct Addresses {
    /// By the pods' uids.
    held: HashMap<String, Ipv4Addr>,
    taken: HashSet<Ipv4Addr>,
}

impl Addresses {
    /// Those that pods have already.
    fn of(pods: &[Arc<Pod>]) -> Self {
        let mut addresses = Self::default();
        for pod in pods.iter().filter(|pod| !crate::pods::is_finished(pod)) {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            if let (Some(uid), Some(ip)) = (&pod.metadata.uid, ip.and_then(|ip| ip.parse().ok())) {
                addresses.held.insert(uid.clone(), ip);
                addresses.taken.insert(ip);
            }
        }
        addresses
    }

    /// The address of a pod on a node; `None` when its node has no more.
    fn give(&mut self, uid: &str, node: usize) -> Option<Ipv4Addr> {
        if let Some(held) = self.held.get(uid) {
            return Some(*held);
        }
        let free = (1..SHARE - 1).map(|host| offset(pod_network(node), host)).find(|ip| !self.taken.contains(ip))?;
        self.held.insert(uid.to_owned(), free);
        self.taken.insert(free);
        Some(free)
    }

    fn release(&mut self, uid: &str) {
        if let Some(ip) = self.held.remove(uid) {
            self.taken.remove(&ip);
        }
    }
}

type SharedAddresses = Arc<Mutex<Option<Addresses>>>;

#[cfg(test)]
mod tests;
