//! Addresses and ports of Services. What an update keeps and what a change of type drops, the Service's row has said before.
//!
//! Each allocation is a key of its own, written in the transaction that writes the Service: two Services can never hold
//! the same one, and none is ever leaked. The key of an address is that of its IPAddress object; the value of a port's key
//! is the Service that holds it.

use crate::ApiServer;
use crate::object::Template;
use bytes::Bytes;
use ipnet::Ipv4Net;
use mini_api::{FieldError, FieldPath, Meta, Status, Value, meta::child_mut, meta::object_mut};
use mini_resources::Resource;
use mini_store::{Expect, Finish, Op, Snapshot};
use rand::Rng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

const ADDRESSES: &str = "/registry/ipaddresses.networking.k8s.io/";
/// Where addresses were kept before they were objects.
const OLD_ADDRESSES: &str = "/allocations/clusterip/";
const SERVICES: &str = "/registry/services/";
const PORTS: &str = "/allocations/nodeport/";
const HEADLESS: &str = "None";

/// True for the kind this is about.
pub(crate) fn applies(resource: &Resource) -> bool {
    resource.kind == "Service" && resource.group.is_empty()
}

fn kind(service: &Value) -> &str {
    match service.text(&["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn has_address(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

fn has_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

/// A health check port of its own: LoadBalancers whose traffic stays on the node.
fn has_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service.text(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn spec_mut(service: &mut Value) -> &mut serde_json::Map<String, Value> {
    child_mut(object_mut(service), "spec")
}

fn addresses(service: &Value) -> Vec<String> {
    let list = service.pointer("/spec/clusterIPs").and_then(Value::as_array);
    let list: Vec<String> = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    match service.text(&["spec", "clusterIP"]) {
        "" => list,
        one if list.is_empty() => vec![one.to_owned()],
        _ => list,
    }
}

fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, name: &str) -> u16 {
    value.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok()).unwrap_or(0)
}

/// Fills what is to be allocated and answers the operations that hold it, and that release what is no longer held.
///
/// # Errors
/// 422 if a value that was asked for is taken or out of range, or nothing is left.
pub(crate) fn plan(server: &ApiServer, new: &mut Value, old: Option<&Value>) -> Result<Vec<Op>, Status> {
    let snapshot = server.store.snapshot();
    let mut errors = Vec::new();
    let held = old.map(held).unwrap_or_default();
    fill_families(new, &mut errors);
    let mut plan = Plan { snapshot, held, wanted: BTreeSet::new(), errors };
    plan.address(server.config.service_cidr, new);
    plan.ports(server, new);
    if !plan.errors.is_empty() {
        return Err(Status::invalid("", "Service", new.name(), &plan.errors));
    }
    let take = plan.wanted.difference(&plan.held).map(|key| take_key(key, new));
    Ok(take.chain(plan.held.difference(&plan.wanted).map(|key| drop_key(&plan.snapshot, key))).collect())
}

/// The operations that release everything a Service holds.
pub(crate) fn release(server: &ApiServer, resource: &Resource, old: &Value) -> Vec<Op> {
    if !applies(resource) {
        return Vec::new();
    }
    let snapshot = server.store.snapshot();
    held(old).iter().map(|key| drop_key(&snapshot, key)).collect()
}

/// The operations that make what the Services of an earlier version of this server lack.
pub(crate) fn repair(server: &ApiServer) -> Vec<Op> {
    let snapshot = server.store.snapshot();
    let mut ops: Vec<Op> = snapshot.range(OLD_ADDRESSES, None).map(|entry| drop_key(&snapshot, &entry.key)).collect();
    let mut missing = BTreeSet::new();
    for entry in snapshot.range(SERVICES, None) {
        let Ok(service) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        for key in held(&service).into_iter().filter(|key| key.starts_with(ADDRESSES)) {
            if snapshot.get(&key).is_none() && missing.insert(key.clone()) {
                ops.push(take_key(&key, &service));
            }
        }
    }
    ops
}

fn take_key(key: &str, service: &Value) -> Op {
    let finish: Finish = match key.strip_prefix(ADDRESSES) {
        Some(address) => Template::new(&address_object(address, service)).finish(),
        None => {
            let owner = Bytes::from(format!("{}/{}", service.namespace(), service.name()));
            Box::new(move |_| owner)
        }
    };
    Op::Put { key: Arc::from(key), expect: Expect::Absent, finish }
}

/// The IPAddress that says who has an address.
fn address_object(address: &str, service: &Value) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let labels = json!({"ipaddress.kubernetes.io/ip-family": family,
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": mini_api::time::now(), "labels": labels},
        "spec": {"parentRef": {"resource": "services", "namespace": service.namespace(), "name": service.name()}}})
}

fn drop_key(snapshot: &Snapshot, key: &str) -> Op {
    // Who watches addresses is told which one went.
    let object = snapshot.get(key).filter(|_| key.starts_with(ADDRESSES));
    let object = object.and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    let finish: Finish = match object {
        Some(object) => Template::new(&object).finish(),
        None => Box::new(|_| Bytes::new()),
    };
    Op::Delete { key: Arc::from(key), expect: Expect::Any, finish }
}

/// The allocation keys of a stored Service.
fn held(service: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    if has_address(service) {
        keys.extend(addresses(service).iter().filter(|a| *a != HEADLESS).map(|a| format!("{ADDRESSES}{a}")));
    }
    keys.extend(
        ports(service).iter().map(|p| number(p, "nodePort")).filter(|p| *p != 0).map(|p| format!("{PORTS}{p}")),
    );
    let health = service.get("spec").map_or(0, |spec| number(spec, "healthCheckNodePort"));
    if health != 0 {
        keys.insert(format!("{PORTS}{health}"));
    }
    keys
}

/// `ipFamilies` and `ipFamilyPolicy` of a cluster that has IPv4 only.
fn fill_families(service: &mut Value, errors: &mut Vec<FieldError>) {
    if !has_address(service) {
        return;
    }
    let spec_path = FieldPath::new("spec");
    let headless = addresses(service).first().is_some_and(|a| a == HEADLESS);
    let selects = service.pointer("/spec/selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    let policy = service.text(&["spec", "ipFamilyPolicy"]).to_owned();
    let families: Vec<Value> =
        service.pointer("/spec/ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    let spec = spec_mut(service);
    if headless && !selects {
        // Who publishes endpoints by hand may publish any.
        let policy = if policy.is_empty() { "RequireDualStack" } else { &policy };
        let mut families = if families.is_empty() { vec!["IPv4".into()] } else { families };
        if let ("RequireDualStack" | "PreferDualStack", [one]) = (policy, families.as_slice()) {
            let other = if *one == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.into());
        }
        spec.insert("ipFamilyPolicy".to_owned(), policy.into());
        spec.insert("ipFamilies".to_owned(), families.into());
        return;
    }
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&spec_path.child("ipFamilyPolicy"), policy.clone(), why));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, f)| **f != "IPv4") {
        let why = "not configured on this cluster";
        errors.push(FieldError::invalid(&spec_path.child("ipFamilies").index(i), family.clone(), why));
    }
    if policy.is_empty() {
        spec.insert("ipFamilyPolicy".to_owned(), "SingleStack".into());
    }
    if families.is_empty() {
        spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    }
}

struct Plan {
    snapshot: Snapshot,
    /// Keys that the Service has now.
    held: BTreeSet<String>,
    /// Keys that it shall have.
    wanted: BTreeSet<String>,
    errors: Vec<FieldError>,
}

impl Plan {
    fn is_free(&self, key: &str) -> bool {
        self.held.contains(key) || (!self.wanted.contains(key) && self.snapshot.get(key).is_none())
    }

    fn address(&mut self, range: Ipv4Net, service: &mut Value) {
        if !has_address(service) {
            return;
        }
        let given = addresses(service);
        if given.first().is_some_and(|a| a == HEADLESS) {
            return;
        }
        if given.is_empty() {
            let Some(address) = self.free_address(range) else {
                let path = FieldPath::new("spec").child("clusterIPs");
                let error = FieldError::invalid(&path, json!([]), "failed to allocate a serviceIP: range is full");
                self.errors.push(error);
                return;
            };
            let spec = spec_mut(service);
            spec.insert("clusterIP".to_owned(), address.clone().into());
            spec.insert("clusterIPs".to_owned(), json!([address]));
            self.wanted.insert(format!("{ADDRESSES}{address}"));
            return;
        }
        for address in &given {
            let key = format!("{ADDRESSES}{address}");
            let inside = address
                .parse::<Ipv4Addr>()
                .is_ok_and(|a| range.contains(&a) && a != range.network() && a != range.broadcast());
            let why = if !inside {
                format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}")
            } else if !self.is_free(&key) {
                "provided IP is already allocated".to_owned()
            } else {
                self.wanted.insert(key);
                continue;
            };
            let path = FieldPath::new("spec").child("clusterIPs");
            let why = format!("failed to allocate IP {address}: {why}");
            self.errors.push(FieldError::invalid(&path, json!(given), why));
        }
    }

    /// A free address. The lower part of the range is left to those who choose their own, as upstream does, until the
    /// rest is full.
    fn free_address(&self, range: Ipv4Net) -> Option<String> {
        let (network, broadcast) = (u32::from(range.network()), u32::from(range.broadcast()));
        let (first, last) = (network.checked_add(1)?, broadcast.checked_sub(1)?);
        let size = last.checked_sub(first)? + 1;
        let reserved = (size / 16).clamp(16, 256).min(size);
        let middle = first + reserved;
        let text = |n: u32| Ipv4Addr::from(n).to_string();
        let free = |n: &u32| self.is_free(&format!("{ADDRESSES}{}", text(*n)));
        if middle <= last {
            let start = rand::rng().random_range(middle..=last);
            if let Some(n) = (start..=last).chain(middle..start).find(free) {
                return Some(text(n));
            }
        }
        // The first address belongs to the `kubernetes` Service, even before it exists.
        (first + 1..middle.min(last + 1)).find(free).map(text)
    }

    fn ports(&mut self, server: &ApiServer, service: &mut Value) {
        let range = server.config.node_ports.clone();
        let path = FieldPath::new("spec").child("ports");
        if has_node_ports(service) {
            let mut list = ports(service).to_vec();
            // A number may serve TCP and UDP of one Service.
            let mut by_port: BTreeMap<u16, Vec<(String, u16)>> = BTreeMap::new();
            for (i, port) in list.iter().enumerate() {
                let given = number(port, "nodePort");
                if given == 0 {
                    continue;
                }
                let key = format!("{PORTS}{given}");
                let at = path.index(i).child("nodePort");
                if !range.contains(&given) && !self.held.contains(&key) {
                    let why = format!(
                        "provided port is not in the valid range. The range of valid ports is {}-{}",
                        range.start(),
                        range.end()
                    );
                    self.errors.push(FieldError::invalid(&at, given, why));
                } else if self.wanted.contains(&key) || self.is_free(&key) {
                    self.wanted.insert(key);
                    let entry = (port.text(&["protocol"]).to_owned(), given);
                    by_port.entry(number(port, "port")).or_default().push(entry);
                } else {
                    self.errors.push(FieldError::invalid(&at, given, "provided port is already allocated"));
                }
            }
            for port in list.iter_mut().filter(|p| number(p, "nodePort") == 0) {
                let protocol = port.text(&["protocol"]).to_owned();
                let siblings = by_port.entry(number(port, "port")).or_default();
                let shared = siblings
                    .iter()
                    .map(|(_, n)| *n)
                    .find(|n| !siblings.iter().any(|(p, other)| *p == protocol && other == n));
                let Some(chosen) = shared.or_else(|| self.free_port(&range)) else {
                    self.errors.push(FieldError::invalid(&path, 0, "failed to allocate a nodePort: range is full"));
                    break;
                };
                self.wanted.insert(format!("{PORTS}{chosen}"));
                by_port.entry(number(port, "port")).or_default().push((protocol, chosen));
                port["nodePort"] = chosen.into();
            }
            spec_mut(service).insert("ports".to_owned(), list.into());
        }
        if has_health_port(service) {
            let given = service.get("spec").map_or(0, |spec| number(spec, "healthCheckNodePort"));
            let chosen = if given == 0 { self.free_port(&range) } else { Some(given) };
            if let Some(port) = chosen.filter(|p| given == 0 || self.is_free(&format!("{PORTS}{p}"))) {
                self.wanted.insert(format!("{PORTS}{port}"));
                spec_mut(service).insert("healthCheckNodePort".to_owned(), port.into());
            } else {
                let path = FieldPath::new("spec").child("healthCheckNodePort");
                self.errors.push(FieldError::invalid(&path, given, "provided port is already allocated"));
            }
        }
    }

    fn free_port(&self, range: &std::ops::RangeInclusive<u16>) -> Option<u16> {
        let start = rand::rng().random_range(range.clone());
        (start..=*range.end()).chain(*range.start()..start).find(|p| self.is_free(&format!("{PORTS}{p}")))
    }
}
