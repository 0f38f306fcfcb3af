//! From one Service's ports to its chains and elements: a pure function.
//!
//! A port is one chain that picks an endpoint at random, and one map element for each of its doors (cluster address,
//! node port, …) that leads to it: however many Services there are, a packet looks into two hash maps. On one node every
//! endpoint answers through this host, so clients keep their address; only what would not come back is masqueraded: a
//! pod that reaches itself, and an endpoint that is somewhere else.

use super::ruleset::{Fragment, MARK};
use super::service::{Port, Target};
use crate::Config;
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

/// nft takes 127 bytes.
const NAME_MAX: usize = 120;

pub(super) fn fragment(ports: &[Port], config: &Config) -> Fragment {
    let &Config { pod_cidr: pods, service_cidr: services, node_ip: node, .. } = config;
    let mut render = Render { fragment: Fragment::default(), pods, services, node };
    for port in ports {
        render.port(port);
    }
    render.fragment
}

struct Render {
    fragment: Fragment,
    pods: Ipv4Net,
    services: Ipv4Net,
    node: IpAddr,
}

impl Render {
    fn port(&mut self, port: &Port) {
        let local: Vec<Target> = port.targets.iter().copied().filter(|target| target.local).collect();
        let cluster = self.endpoints("svc", port, &port.targets);
        let inside = match &cluster {
            Some(_) if port.internal_local => self.endpoints("int", port, &local),
            other => other.clone(),
        };
        let outside = match &cluster {
            Some(cluster) if port.external_local => Some(self.local_only(port, cluster, &local)),
            other => other.clone(),
        };
        let balancer = match &outside {
            Some(outside) if !port.source_ranges.is_empty() => {
                let ranges: Vec<String> = port.source_ranges.iter().map(ToString::to_string).collect();
                let stranger = format!("ip saddr != {{ {} }} drop", ranges.join(", "));
                Some(self.chain(name("lb", port, ""), vec![stranger, format!("goto {outside}")]))
            }
            other => other.clone(),
        };
        // A cluster address without endpoints needs no element: its whole range is refused.
        self.addresses(port, &port.cluster_ips, inside.as_deref(), false);
        // Cluster addresses are given out by the API server: naming one does not get it.
        let foreign = |ips: &[Ipv4Addr]| -> Vec<Ipv4Addr> {
            ips.iter().copied().filter(|ip| !self.services.contains(ip)).collect()
        };
        let (external, balanced) = (foreign(&port.external_ips), foreign(&port.load_balancer_ips));
        self.addresses(port, &external, outside.as_deref(), true);
        self.addresses(port, &balanced, balancer.as_deref(), true);
        if let Some(number) = port.node_port {
            let key = format!("{} . {number}", port.protocol);
            self.door(["node-ports", "empty-node-ports"], key, outside.as_deref(), true);
            self.fragment.node_ports.insert((port.protocol, number));
            self.udp(port, None, number);
        }
    }

    /// What comes from outside goes to endpoints of this node, or nowhere; pods and the host itself are inside, whatever
    /// address they use.
    fn local_only(&mut self, port: &Port, cluster: &str, local: &[Target]) -> String {
        let own = self.endpoints("own", port, local);
        let rules = vec![
            format!("ip saddr {} goto {cluster}", self.pods),
            format!("fib saddr type local goto {cluster}"),
            own.map_or_else(|| "drop".to_owned(), |own| format!("goto {own}")),
        ];
        self.chain(name("ext", port, ""), rules)
    }

    /// The chain that sends a connection to one of `targets`; `None` without any.
    fn endpoints(&mut self, prefix: &str, port: &Port, targets: &[Target]) -> Option<String> {
        if targets.is_empty() {
            return None;
        }
        for target in targets.iter().filter(|target| self.pods.contains(&target.address)) {
            self.fragment.elements.insert(("hairpin", format!("{0} . {0}", target.address)), None);
        }
        let rules = match port.affinity {
            Some(seconds) => self.sticky(port, targets, seconds),
            None => {
                let mark = targets.iter().any(|target| self.elsewhere(target.address)).then(mark);
                mark.into_iter().chain([pick(port, targets)]).collect()
            }
        };
        Some(self.chain(name(prefix, port, ""), rules))
    }

    /// Each endpoint has a chain and remembers its clients; a known client goes back to where it was.
    fn sticky(&mut self, port: &Port, targets: &[Target], seconds: u32) -> Vec<String> {
        let (mut known, mut numbered) = (Vec::new(), Vec::new());
        for (number, target) in targets.iter().enumerate() {
            // The timeout is part of the name, because a set's timeout cannot be changed.
            let clients = name("clients", port, &format!("/{}/{}/{seconds}", target.address, target.port));
            let endpoint = name("ep", port, &format!("/{}/{}", target.address, target.port));
            let mark = self.elsewhere(target.address).then(mark);
            let rules =
                [format!("update @{clients} {{ ip saddr }}")].into_iter().chain(mark).chain([pick(port, &[*target])]);
            known.push(format!("ip saddr @{clients} goto {endpoint}"));
            numbered.push(format!("{number} : goto {endpoint}"));
            self.chain(endpoint, rules.collect());
            self.fragment.clients.insert(clients, seconds);
        }
        known.push(format!("numgen random mod {} vmap {{ {} }}", targets.len(), numbered.join(", ")));
        known
    }

    fn addresses(&mut self, port: &Port, addresses: &[Ipv4Addr], chain: Option<&str>, refuse: bool) {
        for address in addresses {
            let key = format!("{} . {address} . {}", port.protocol, port.port);
            self.door(["services", "empty-services"], key, chain, refuse);
            self.udp(port, Some(*address), port.port);
        }
    }

    fn door(&mut self, [open, empty]: [&'static str; 2], key: String, chain: Option<&str>, refuse: bool) {
        match chain {
            Some(chain) => drop(self.fragment.elements.insert((open, key), Some(chain.to_owned()))),
            None if refuse => drop(self.fragment.elements.insert((empty, key), None)),
            None => {}
        }
    }

    fn udp(&mut self, port: &Port, address: Option<Ipv4Addr>, number: u16) {
        if port.protocol == "udp" {
            let targets = port.targets.iter().map(|target| (target.address, target.port)).collect();
            self.fragment.udp.insert((address, number), targets);
        }
    }

    fn chain(&mut self, name: String, rules: Vec<String>) -> String {
        self.fragment.chains.insert(name.clone(), rules);
        name
    }

    /// Neither a pod nor this node.
    fn elsewhere(&self, address: Ipv4Addr) -> bool {
        !self.pods.contains(&address) && IpAddr::V4(address) != self.node
    }
}

fn mark() -> String {
    format!("meta mark set meta mark | {MARK}")
}

fn pick(port: &Port, targets: &[Target]) -> String {
    let l4 = port.protocol;
    if let [Target { address, port, .. }] = targets {
        return format!("meta l4proto {l4} dnat to {address}:{port}");
    }
    let numbered = targets.iter().enumerate();
    let list: Vec<String> =
        numbered.map(|(number, Target { address, port, .. })| format!("{number} : {address} . {port}")).collect();
    let (count, list) = (targets.len(), list.join(", "));
    format!("meta l4proto {l4} dnat ip addr . port to numgen random mod {count} map {{ {list} }}")
}

/// A name that says what it is for, and fits.
fn name(prefix: &str, port: &Port, rest: &str) -> String {
    let Port { namespace, service, port, protocol, .. } = port;
    let name = format!("{prefix}/{namespace}/{service}/{port}/{protocol}{rest}");
    if name.len() <= NAME_MAX {
        return name;
    }
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let kept: String = name.chars().take(NAME_MAX - 17).collect();
    format!("{kept}/{hash:016x}")
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
