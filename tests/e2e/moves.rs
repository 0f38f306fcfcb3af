//! A machine whose address and name change between starts, and whose name servers change while it runs.

use crate::cluster::{Cluster, IDLE, text, until};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A network, a host name and mounts of their own: an instance in them is as on another machine.
struct Place {
    holder: Child,
}

impl Place {
    fn new() -> Self {
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        let holder = Command::new("unshare").args(["--net", "--uts", "--mount", "sleep", "infinity"]).spawn().unwrap();
        let theirs = format!("/proc/{}/ns/net", holder.id());
        until("the namespaces", || std::fs::read_link(&theirs).is_ok_and(|space| space != ours));
        let started = format!("/proc/{}/comm", holder.id());
        until("the holder", || std::fs::read_to_string(&started).is_ok_and(|name| name.trim() == "sleep"));
        Self { holder }
    }

    fn enter(&self) -> Vec<String> {
        ["nsenter", "--net", "--uts", "--mount", "--target"]
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

    /// A name server there, which gives every name the address `told`.
    fn name_server(&self, address: &str, told: [u8; 4]) {
        let (network, address) = (format!("/proc/{}/ns/net", self.holder.id()), format!("{address}:53"));
        let (listens, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let network = std::fs::File::open(network).unwrap();
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let socket = UdpSocket::bind(address).unwrap();
            listens.send(()).unwrap();
            let mut packet = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                let _ = socket.send_to(&answer(&packet[..length], told), client);
            }
        });
        listening.recv().unwrap();
    }
}

/// The reply to a query: the address to a question for one, nothing to others.
fn answer(query: &[u8], told: [u8; 4]) -> Vec<u8> {
    let name = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let asks_address = query[name..name + 2] == [0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_address), 0, 0, 0, 0]);
    reply.extend(&query[12..name + 4]);
    if asks_address {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(told);
    }
    reply
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

/// A laptop that is carried from one network into another.
pub(crate) fn other_name_servers(_: &Cluster, space: &str) {
    let place = Place::new();
    let cluster = Cluster::new(place.enter(), &[]);
    let etc = cluster.directory().join("etc");
    place.sh(&format!(
        "ip link set lo up; ip link add up0 type veth peer name up1; ip link set up1 up; ip link set up0 up; \
         ip address add 10.99.0.7/24 dev up0; ip route add default via 10.99.0.1; \
         ip address add 10.99.1.1/32 dev lo; ip address add 10.99.1.2/32 dev lo; \
         mkdir -p {0}/upper {0}/work; mount -t overlay -o lowerdir=/etc,upperdir={0}/upper,workdir={0}/work etc /etc; \
         rm -f /etc/resolv.conf",
        etc.display()
    ));
    place.name_server("10.99.1.1", [192, 0, 2, 1]);
    place.name_server("10.99.1.2", [192, 0, 2, 2]);
    cluster.mini(["start", "--wait-ready", "--timeout", "60"]);
    cluster.prepare();
    cluster.mini(["enable", "dns"]);
    cluster.namespace(space);
    cluster.pod(space, "client", IDLE);
    let server =
        || cluster.field("kube-system", "pod", ".items[?(@.metadata.labels.k8s-app==\"kube-dns\")].metadata.uid");
    let first = server();
    assert!(!first.is_empty());
    let ask = |name: &str| cluster.try_sh(space, "client", &format!("getent hosts {name}"));
    let told = |what: &str, address: &str| {
        let begun = Instant::now();
        // Each time another name, so that nobody remembers it.
        let mut asked = 0;
        until(what, || {
            asked += 1;
            ask(&format!("n{asked}.{address}.test")).is_ok_and(|said| said.starts_with(address))
        });
        assert!(begun.elapsed() < Duration::from_secs(3), "{what}: {:?}", begun.elapsed());
    };

    // Offline: a failure, and at once.
    let begun = Instant::now();
    assert!(ask("www.test").is_err());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    place.sh("echo nameserver 10.99.1.1 > /etc/resolv.new; mv /etc/resolv.new /etc/resolv.conf");
    told("the first network", "192.0.2.1");
    place.sh("mkdir /etc/real; echo nameserver 10.99.1.2 > /etc/real/file; ln -sf real/file /etc/resolv.conf");
    told("the second network", "192.0.2.2");
    place.sh("echo nameserver 10.99.1.1 > /etc/real/file");
    told("the first network again", "192.0.2.1");
    assert_eq!(server(), first, "the server was replaced");
    // Offline again.
    place.sh("rm /etc/resolv.conf");
    let begun = Instant::now();
    until("no network", || ask(&format!("{}.test", begun.elapsed().as_millis())).is_err());

    // Who names servers gets those.
    cluster.mini(["enable", "dns:10.99.1.2"]);
    told("the server that was named", "192.0.2.2");
    place.sh("echo nameserver 10.99.1.1 > /etc/resolv.conf; sleep 0.5");
    told("still the server that was named", "192.0.2.2");
    cluster.drop_namespace(space);
    if let Err(left) = cluster.finish() {
        panic!("left after reset: {left:#?}");
    }
}
