//! The services' table as data: chains, sets and map elements; its text, and the text that turns one into another.

use crate::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Elements in one statement; keeps lines short enough to read in a log.
const BATCH: usize = 64;

/// A UDP door: the address (any of the node's when `None`) and port that clients send to.
pub(super) type UdpDoor = (Option<Ipv4Addr>, u16);
/// Where datagrams may go.
pub(super) type UdpTargets = BTreeSet<(Ipv4Addr, u16)>;

/// What one Service contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Name and timeout in seconds of the sets that remember clients; a name never changes its timeout.
    pub(super) clients: BTreeMap<String, u32>,
    /// Name and rules.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// (map or set, key) and, for a map, the chain that the packet goes to.
    pub(super) elements: BTreeMap<(&'static str, String), Option<String>>,
    pub(super) udp: BTreeMap<UdpDoor, UdpTargets>,
    pub(super) node_ports: BTreeSet<(&'static str, u16)>,
}

/// The whole table but for its fixed part. Where two Services claim the same element, the first by name has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset(Fragment);

/// The table's name.
pub(super) fn table(config: &Config) -> String {
    format!("{}-services", config.table)
}

/// The part that no Service changes. Only the first packet of a connection passes the nat hooks; the reply's way back is
/// connection tracking's. Rejection cannot happen in a nat hook, so what no endpoint took is refused on its way out; TCP by a reset,
/// because the kernel sends only a few ICMP errors to the same host.
fn fixed(config: &Config) -> String {
    let Config { service_cidr, own_ports, .. } = config;
    let own: Vec<String> = own_ports.iter().map(ToString::to_string).collect();
    let guard = match own.as_slice() {
        [] => String::new(),
        own => format!("\t\ttcp dport {{ {} }} fib daddr type local return\n", own.join(", ")),
    };
    format!(
        r#"	map services {{
		type inet_proto . ipv4_addr . inet_service : verdict
	}}
	map node-ports {{
		type inet_proto . inet_service : verdict
	}}
	set empty-services {{
		type inet_proto . ipv4_addr . inet_service
	}}
	set empty-node-ports {{
		type inet_proto . inet_service
	}}
	set hairpin {{
		type ipv4_addr . ipv4_addr
	}}
	chain dispatch {{
{guard}		meta l4proto . ip daddr . th dport vmap @services
		fib daddr type local meta l4proto . th dport vmap @node-ports
	}}
	chain prerouting {{
		type nat hook prerouting priority -100; policy accept;
		goto dispatch
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		goto dispatch
	}}
	chain postrouting {{
		type nat hook postrouting priority 99; policy accept;
		ip saddr . ip daddr @hairpin masquerade
		oifname != "lo" meta mark & {MARK} != 0 meta mark set meta mark & {UNMARK} masquerade
	}}
	chain refusal {{
		meta l4proto tcp reject with tcp reset
		reject
	}}
	chain refuse {{
		ip daddr {service_cidr} goto refusal
		meta l4proto . ip daddr . th dport @empty-services goto refusal
		fib daddr type local meta l4proto . th dport @empty-node-ports goto refusal
	}}
	chain refuse-input {{
		type filter hook input priority -1; policy accept;
		ct state new goto refuse
	}}
	chain refuse-forward {{
		type filter hook forward priority -1; policy accept;
		ct state new goto refuse
	}}
	chain refuse-output {{
		type filter hook output priority -1; policy accept;
		ct state new goto refuse
	}}
"#
    )
}

/// The packet mark of connections that must leave with the node's address, as upstream's.
pub(super) const MARK: &str = "0x4000";
const UNMARK: &str = "0xffffbfff";

impl Ruleset {
    pub(super) fn merge<'a>(fragments: impl Iterator<Item = &'a Fragment>) -> Self {
        let mut all = Fragment::default();
        for fragment in fragments {
            all.clients.extend(fragment.clients.clone());
            all.chains.extend(fragment.chains.clone());
            for (key, value) in &fragment.elements {
                all.elements.entry(key.clone()).or_insert_with(|| value.clone());
            }
            for (door, targets) in &fragment.udp {
                all.udp.entry(*door).or_insert_with(|| targets.clone());
            }
            all.node_ports.extend(&fragment.node_ports);
        }
        Self(all)
    }

    /// Replaces whatever there is by this table.
    pub(super) fn whole(&self, config: &Config) -> String {
        let table = table(config);
        let mut text = format!("add table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n{}", fixed(config));
        for (name, seconds) in &self.0.clients {
            let _ = writeln!(text, "\tset {name} {{\n\t\t{}\n\t}}", clients(*seconds));
        }
        for (name, rules) in &self.0.chains {
            let _ = writeln!(text, "\tchain {name} {{\n\t\t{}\n\t}}", rules.join("\n\t\t"));
        }
        text += "}\n";
        write_elements(&mut text, "add", &table, self.0.elements.iter(), true);
        text
    }

    /// What turns this table into `wanted`; `None` when they are the same.
    ///
    /// References come after what they refer to, and go before it.
    pub(super) fn difference(&self, wanted: &Self, config: &Config) -> Option<String> {
        let table = table(config);
        let (old, new) = (&self.0, &wanted.0);
        let mut text = String::new();
        let changed = |key: &(&'static str, String), value: &Option<String>, other: &Fragment| {
            other.elements.get(key).is_none_or(|there| there != value)
        };
        let gone = old.elements.iter().filter(|(key, value)| changed(key, value, new));
        write_elements(&mut text, "delete", &table, gone, false);
        for (name, seconds) in new.clients.iter().filter(|(name, _)| !old.clients.contains_key(*name)) {
            let _ = writeln!(text, "add set ip {table} {name} {{ {} }}", clients(*seconds));
        }
        let fresh: Vec<_> = new.chains.iter().filter(|(name, rules)| old.chains.get(*name) != Some(rules)).collect();
        for (name, _) in &fresh {
            let verb = if old.chains.contains_key(*name) { "flush" } else { "add" };
            let _ = writeln!(text, "{verb} chain ip {table} {name}");
        }
        for (name, rules) in &fresh {
            for rule in *rules {
                let _ = writeln!(text, "add rule ip {table} {name} {rule}");
            }
        }
        let come = new.elements.iter().filter(|(key, value)| changed(key, value, old));
        write_elements(&mut text, "add", &table, come, true);
        let dead: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
        for verb in ["flush", "delete"] {
            for name in &dead {
                let _ = writeln!(text, "{verb} chain ip {table} {name}");
            }
        }
        for name in old.clients.keys().filter(|name| !new.clients.contains_key(*name)) {
            let _ = writeln!(text, "delete set ip {table} {name}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// UDP doors whose endpoints are others than before, with those they have now.
    pub(super) fn moved_udp(&self, before: Option<&Self>) -> BTreeMap<UdpDoor, UdpTargets> {
        let none = UdpTargets::new();
        let old = before.map(|before| &before.0.udp);
        let had = |door: &UdpDoor| old.and_then(|old| old.get(door)).unwrap_or(&none);
        let lost = |door: &UdpDoor, now: &UdpTargets| had(door).is_empty() || !had(door).is_subset(now);
        let mut moved: BTreeMap<_, _> = self
            .0
            .udp
            .iter()
            .filter(|(door, now)| had(door) != *now && lost(door, now))
            .map(|(door, now)| (*door, now.clone()))
            .collect();
        let closed = old.into_iter().flatten().filter(|(door, _)| !self.0.udp.contains_key(door));
        moved.extend(closed.map(|(door, _)| (*door, none.clone())));
        moved
    }

    pub(super) fn new_node_ports(&self, before: Option<&Self>) -> Vec<(String, u16)> {
        let known = |port: &&(&'static str, u16)| before.is_some_and(|before| before.0.node_ports.contains(port));
        self.0.node_ports.iter().filter(|port| !known(port)).map(|(l4, port)| ((*l4).to_owned(), *port)).collect()
    }
}

/// The body of a set that remembers clients; the kernel forgets them by itself.
fn clients(seconds: u32) -> String {
    format!("type ipv4_addr; flags dynamic,timeout; timeout {seconds}s;")
}

type Element<'a> = (&'a (&'static str, String), &'a Option<String>);

fn write_elements<'a>(
    text: &mut String,
    verb: &str,
    table: &str,
    elements: impl Iterator<Item = Element<'a>>,
    values: bool,
) {
    let mut by_map: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((map, key), value) in elements {
        let element = match value {
            Some(chain) if values => format!("{key} : goto {chain}"),
            _ => key.clone(),
        };
        by_map.entry(map).or_default().push(element);
    }
    for (map, elements) in by_map {
        for batch in elements.chunks(BATCH) {
            let _ = writeln!(text, "{verb} element ip {table} {map} {{ {} }}", batch.join(", "));
        }
    }
}
