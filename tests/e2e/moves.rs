//! A machine whose address and name change between starts.

use crate::cluster::{Cluster, text, until};
use std::process::{Child, Command};

/// A network and a host name of their own: an instance in them is as on another machine.
struct Place {
    holder: Child,
}

impl Place {
    fn new() -> Self {
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let holder = Command::new("unshare").args(["--net", "--uts", "sleep", "infinity"]).spawn().unwrap();
        let theirs = format!("/proc/{}/ns/net", holder.id());
        until("the namespaces", || std::fs::read_link(&theirs).is_ok_and(|space| space != ours));
        Self { holder }
    }

    fn enter(&self) -> Vec<String> {
        ["nsenter", "--net", "--uts", "--target"]
            .map(str::to_owned)
            .into_iter()
            .chain([self.holder.id().to_string()])
            .collect()
    }

    fn sh(&self, line: &str) {
        let words = self.enter();
        let output = Command::new(&words[0]).args(&words[1..]).args(["sh", "-ec", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn nodes(cluster: &Cluster) -> String {
    let columns =
        "jsonpath={range .items[*]}{.metadata.name}={.status.addresses[?(@.type==\"InternalIP\")].address} {end}";
    cluster.kubectl("default", &["get", "nodes", "-o", columns]).trim().to_owned()
}

pub(crate) fn new_address_and_name(_: &Cluster, _: &str) {
    let place = Place::new();
    let cluster = Cluster::new(place.enter(), &[]);
    place.sh("hostname First; ip link set lo up; ip link add up0 type veth peer name up1; ip link set up1 up; \
         ip address add 10.99.0.7/24 dev up0; ip link set up0 up; ip route add default via 10.99.0.1");
    cluster.mini(["start", "--wait-ready", "--timeout", "60"]);
    assert_eq!(nodes(&cluster), "first=10.99.0.7");
    cluster.kubectl("default", &["create", "configmap", "kept"]);
    cluster.mini(["stop"]);

    place.sh("hostname second; ip address flush dev up0; ip address add 10.98.0.9/24 dev up0; ip route add default via 10.98.0.1");
    cluster.mini(["start", "--wait-ready", "--timeout", "60"]);
    until("the new address", || nodes(&cluster) == "first=10.98.0.9");
    let port = cluster
        .mini(["config"])
        .lines()
        .find_map(|line| {
            line.rsplit_once(':').filter(|(key, _)| key.contains("server"))?.1.trim_end_matches('/').parse::<u16>().ok()
        })
        .unwrap();
    // Trusted under the new address: the certificate names it.
    cluster.kubectl("default", &["--server", &format!("https://10.98.0.9:{port}"), "get", "configmap", "kept"]);
    assert_eq!(cluster.field("default", "endpointslice/kubernetes", ".endpoints[0].addresses[0]"), "10.98.0.9");
    cluster.mini(["stop"]);

    // No route and no address but loopback's.
    place.sh("ip link delete up0");
    cluster.mini(["start", "--wait-ready", "--timeout", "60"]);
    assert!(nodes(&cluster).starts_with("first=10."), "{}", nodes(&cluster));
    assert!(!nodes(&cluster).contains("10.98."), "{}", nodes(&cluster));
    cluster.kubectl("default", &["get", "configmap", "kept"]);
    if let Err(left) = cluster.finish() {
        panic!("left after reset: {left:#?}");
    }
}
