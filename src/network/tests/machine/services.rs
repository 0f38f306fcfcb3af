//! The service proxy, fed by a fake API server.

use crate::world::{NODE, OUTSIDE, World, ask_udp, run};
use mini_client::testing::FakeApi;
use mini_client::{Caches, CancellationToken};
use mini_telemetry::Health;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

struct Proxy {
    api: FakeApi,
    cancel: CancellationToken,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Proxy {
    fn start(world: &World, api: FakeApi) -> Self {
        let (health, cancel) = (Health::default(), CancellationToken::new());
        world.block_on(async {
            let caches = Caches::new(api.client(), cancel.clone());
            mini_network::proxy::spawn(world.config.clone(), caches, health.component("proxy"), cancel.clone());
            let ready = async {
                while !health.is_ready() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), ready).await.expect("the proxy gets ready");
        });
        Self { api, cancel }
    }

    fn service(&self, name: &str, spec: &Value) {
        self.api.put(&service(name, spec));
    }

    fn endpoints(&self, name: &str, port: u16, protocol: &str, addresses: &[&str]) {
        self.api.put(&slice(name, port, protocol, addresses));
    }
}

fn service(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

fn slice(name: &str, port: u16, protocol: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<_> =
        addresses.iter().map(|address| json!({ "addresses": [address], "nodeName": "n" })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-1"), "namespace": "default", "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "port": port, "protocol": protocol }], "endpoints": endpoints,
    })
}

/// Waits until the table's text holds, or no longer holds, `part`.
fn until(part: &str, there: bool) {
    let start = Instant::now();
    while run("nft", &["list", "ruleset"]).contains(part) != there {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{part:?} should be there: {there}\n{}",
            run("nft", &["list", "ruleset"])
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three pods that serve their names on port 8080, TCP and UDP.
fn pods(world: &World) -> Vec<String> {
    let start = |pod: &&str| {
        world.serve(pod, pod, 8080);
        world.serve_udp(pod, pod, 8080);
        world.add(pod, &Value::Null)
    };
    ["pod1", "pod2", "pod3"].iter().map(start).collect()
}

pub(crate) fn reach(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    proxy.service("web", &json!({ "clusterIP": "10.78.0.10", "externalIPs": ["198.51.100.1"], "ports": [{ "port": 80, "nodePort": 30080 }] }));
    proxy.endpoints("web", 8080, "TCP", &[&pods[0]]);
    until("10.78.0.10 . 80 : goto", true);
    until("30080 : goto", true);
    assert_eq!(
        world.ask("pod2", "10.78.0.10:80").unwrap(),
        format!("pod1 {}", pods[1]),
        "from a pod, with its address"
    );
    assert_eq!(world.ask("pod1", "10.78.0.10:80").unwrap(), "pod1 10.77.0.1", "hairpin");
    assert_eq!(world.ask("node", "10.78.0.10:80").unwrap(), "pod1 10.77.0.1", "from the host");
    assert_eq!(world.ask("pod2", "198.51.100.1:80").unwrap(), format!("pod1 {}", pods[1]), "external address");
    for from in ["outside", "node", "pod1", "pod2"] {
        assert!(world.ask(from, &format!("{NODE}:30080")).unwrap().starts_with("pod1 "), "node port from {from}");
    }
    assert_eq!(world.ask("outside", &format!("{NODE}:30080")).unwrap(), format!("pod1 {OUTSIDE}"));
    assert!(world.ask("node", "127.0.0.1:30080").unwrap().starts_with("pod1 "), "node port on loopback");
    assert!(world.ask("node", "10.77.0.1:30080").unwrap().starts_with("pod1 "), "node port on the bridge");

    // More endpoints share the work.
    proxy.endpoints("web", 8080, "TCP", &[&pods[0], &pods[1], &pods[2]]);
    until("mod 3", true);
    let seen: BTreeSet<String> = (0..60).map(|_| world.ask("node", "10.78.0.10:80").unwrap()).collect();
    assert_eq!(seen.len(), 3, "{seen:?}");

    // An endpoint on the node itself, as the API server's, and one outside.
    world.serve("node", "node", 16443);
    world.serve("outside", "outside", 82);
    proxy.service("kubernetes", &json!({ "clusterIP": "10.78.0.1", "ports": [{ "port": 443 }] }));
    proxy.endpoints("kubernetes", 16443, "TCP", &[NODE]);
    proxy.service("far", &json!({ "clusterIP": "10.78.0.11", "ports": [{ "port": 80, "nodePort": 30081 }] }));
    proxy.endpoints("far", 82, "TCP", &[OUTSIDE]);
    until("10.78.0.1 . 443 : goto", true);
    until("10.78.0.11 . 80 : goto", true);
    assert_eq!(world.ask("pod1", "10.78.0.1:443").unwrap(), format!("node {}", pods[0]));
    assert!(world.ask("node", "10.78.0.1:443").unwrap().starts_with("node "));
    for from in ["pod1", "node"] {
        assert_eq!(world.ask(from, "10.78.0.11:80").unwrap(), format!("outside {NODE}"), "from {from}");
    }

    // Gone means gone, and the number of chains goes with it.
    proxy.api.remove("v1", "services", "default", "web");
    until("svc/default/web", false);
    assert!(world.ask("node", "127.0.0.1:30080").is_err());
    assert!(world.ask("pod2", "10.78.0.10:80").is_err());
}

pub(crate) fn refuse(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    proxy.service("web", &json!({ "clusterIP": "10.78.0.10", "ports": [{ "port": 80, "nodePort": 30080 }] }));
    until("30080", true);
    for (from, to) in [
        ("pod1", "10.78.0.10:80"),
        ("node", "10.78.0.10:80"),
        ("pod1", "10.78.0.99:80"),
        ("node", "127.0.0.1:30080"),
        ("outside", &format!("{NODE}:30080")),
    ] {
        // More often than the kernel would send ICMP errors to one host.
        for _ in 0..20 {
            let start = Instant::now();
            let error = world.ask(from, to).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{from} → {to}");
            assert!(start.elapsed() < Duration::from_millis(500), "{from} → {to} took {:?}", start.elapsed());
        }
    }
    proxy.endpoints("web", 8080, "TCP", &[&pods[0]]);
    until("30080 : goto", true);
    assert!(world.ask("outside", &format!("{NODE}:30080")).is_ok());
    proxy.endpoints("web", 8080, "TCP", &[]);
    until("30080 : goto", false);
    assert!(world.ask("outside", &format!("{NODE}:30080")).is_err());
}

pub(crate) fn affinity(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    let spec = json!({ "clusterIP": "10.78.0.10", "ports": [{ "port": 80 }], "sessionAffinity": "ClientIP" });
    proxy.service("web", &spec);
    proxy.endpoints("web", 8080, "TCP", &[&pods[0], &pods[1]]);
    until("10.78.0.10 . 80 : goto", true);
    let served =
        |n: usize| -> BTreeSet<String> { (0..n).map(|_| world.ask("pod3", "10.78.0.10:80").unwrap()).collect() };
    let first = served(20);
    assert_eq!(first.len(), 1, "{first:?}");
    // Another endpoint comes: clients stay.
    proxy.endpoints("web", 8080, "TCP", &pods.iter().map(String::as_str).collect::<Vec<_>>());
    until("mod 3", true);
    assert_eq!(served(20), first);
    let mut spec = spec;
    spec["sessionAffinity"] = "None".into();
    proxy.service("web", &spec);
    until("clients/default/web", false);
    assert!(served(40).len() > 1);
}

pub(crate) fn udp(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    let spec = json!({ "clusterIP": "10.78.0.10", "ports": [{ "port": 53, "protocol": "UDP", "nodePort": 30053 }] });
    proxy.service("dns", &spec);
    proxy.endpoints("dns", 8080, "UDP", &[&pods[0]]);
    until("30053 : goto", true);
    let (inner, outer) = (world.udp_socket("pod3"), world.udp_socket("outside"));
    let node_port = format!("{NODE}:30053");
    assert_eq!(ask_udp(&inner, "10.78.0.10:53").as_deref(), Some("pod1"));
    assert_eq!(ask_udp(&outer, &node_port).as_deref(), Some("pod1"));
    proxy.endpoints("dns", 8080, "UDP", &[&pods[1]]);
    until(&format!("dnat to {}:8080", pods[1]), true);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ask_udp(&inner, "10.78.0.10:53").as_deref(), Some("pod2"), "the same socket");
    assert_eq!(ask_udp(&outer, &node_port).as_deref(), Some("pod2"));
}

pub(crate) fn local(world: &World) {
    let pods = pods(world);
    world.serve("outside", "outside", 82);
    let proxy = Proxy::start(world, FakeApi::default());
    let spec = json!({ "type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": "10.78.0.10",
        "ports": [{ "port": 80, "nodePort": 30080 }] });
    proxy.service("web", &spec);
    proxy.endpoints("web", 8080, "TCP", &[&pods[0]]);
    let mut far = slice("web", 82, "TCP", &[OUTSIDE]);
    far["metadata"]["name"] = json!("web-far");
    far["endpoints"][0]["nodeName"] = Value::Null;
    proxy.api.put(&far);
    until("30080 : goto ext/", true);
    until("mod 2", true);
    for _ in 0..20 {
        let answer = world.ask("outside", &format!("{NODE}:30080")).unwrap();
        assert_eq!(answer, format!("pod1 {OUTSIDE}"), "only the endpoint here, and the client's own address");
    }
    let seen = |from: &str, to: &str| -> BTreeSet<String> {
        let name = |answer: String| answer.split(' ').next().unwrap_or_default().to_owned();
        (0..40).map(|_| name(world.ask(from, to).unwrap())).collect()
    };
    for (from, to) in
        [("node", format!("{NODE}:30080")), ("pod2", format!("{NODE}:30080")), ("pod2", "10.78.0.10:80".to_owned())]
    {
        assert_eq!(seen(from, &to).len(), 2, "{from} is inside: every endpoint serves it");
    }
    proxy.endpoints("web", 8080, "TCP", &[]);
    until("own/default/web", false);
    assert!(world.ask("outside", &format!("{NODE}:30080")).is_err(), "none here, and none elsewhere instead");
    assert!(world.ask("node", "10.78.0.10:80").unwrap().starts_with("outside "));
}

pub(crate) fn balancer(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    let balanced = |ranges: Value| {
        let spec = json!({ "type": "LoadBalancer", "clusterIP": "10.78.0.10", "ports": [{ "port": 88 }],
            "loadBalancerSourceRanges": ranges });
        let mut service = service("web", &spec);
        service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": NODE, "ipMode": "VIP" }] } });
        proxy.api.put(&service);
    };
    balanced(json!([]));
    proxy.endpoints("web", 8080, "TCP", &[&pods[0]]);
    until(&format!("{NODE} . 88 : goto"), true);
    let door = format!("{NODE}:88");
    assert_eq!(world.ask("outside", &door).unwrap(), format!("pod1 {OUTSIDE}"));
    for from in ["node", "pod1", "pod2"] {
        assert!(world.ask(from, &door).unwrap().starts_with("pod1 "), "from {from}");
    }
    balanced(json!(["10.77.0.0/24"]));
    until("lb/default/web", true);
    assert!(world.ask("pod2", &door).unwrap().starts_with("pod1 "));
    assert!(world.ask("outside", &door).is_err(), "not of the allowed ranges");
    proxy.service("web", &json!({ "type": "ClusterIP", "clusterIP": "10.78.0.10", "ports": [{ "port": 88 }] }));
    until(&format!("{NODE} . 88"), false);
    assert!(world.ask("outside", &door).is_err());
}

pub(crate) fn shadow(world: &World) {
    let pods = pods(world);
    world.serve("node", "node", 16443);
    let proxy = Proxy::start(world, FakeApi::default());
    proxy.service("kubernetes", &json!({ "clusterIP": "10.78.0.1", "ports": [{ "port": 443 }] }));
    proxy.endpoints("kubernetes", 16443, "TCP", &[NODE]);
    let ports = json!([{ "name": "a", "port": 443 }, { "name": "b", "port": 16443 }]);
    proxy.service("a", &json!({ "clusterIP": "10.78.0.9", "externalIPs": [NODE, "10.78.0.1"], "ports": ports }));
    let mut evil = slice("a", 8080, "TCP", &[&pods[0]]);
    evil["ports"] = json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 8080 }]);
    proxy.api.put(&evil);
    until("10.78.0.1 . 443 : goto svc/default/kubernetes", true);
    until("10.78.0.9 . 443 : goto", true);
    for from in ["pod2", "node"] {
        assert!(world.ask(from, "10.78.0.1:443").unwrap().starts_with("node "), "the API's address from {from}");
    }
    for from in ["outside", "pod2", "node"] {
        assert!(world.ask(from, &format!("{NODE}:16443")).unwrap().starts_with("node "), "the API itself from {from}");
    }
    assert!(world.ask("outside", &format!("{NODE}:443")).unwrap().starts_with("pod1 "), "other ports may be taken");
}

pub(crate) fn flushed(world: &World) {
    let pods = pods(world);
    let proxy = Proxy::start(world, FakeApi::default());
    proxy.service("web", &json!({ "clusterIP": "10.78.0.10", "ports": [{ "port": 80 }] }));
    proxy.endpoints("web", 8080, "TCP", &[&pods[0]]);
    until("10.78.0.10 . 80 : goto", true);
    run("nft", &["flush", "ruleset"]);
    until("10.78.0.10 . 80 : goto", true);
    until("martians", true);
    assert!(world.ask("pod2", "10.78.0.10:80").is_ok());
    // And a table that somebody spoiled under our feet is replaced at the next change.
    run("nft", &["delete element ip mtest-services services { tcp . 10.78.0.10 . 80 }"]);
    proxy.api.remove("v1", "services", "default", "web");
    proxy.service("next", &json!({ "clusterIP": "10.78.0.11", "ports": [{ "port": 80 }] }));
    proxy.endpoints("next", 8080, "TCP", &[&pods[0]]);
    until("10.78.0.11 . 80 : goto", true);
    until("svc/default/web", false);
}

pub(crate) fn many(world: &World) {
    let pods = pods(world);
    let api = FakeApi::default();
    for number in 0..1000_u32 {
        let name = format!("s{number}");
        let address = format!("10.78.{}.{}", number / 250, number % 250 + 1);
        api.put(&service(&name, &json!({ "clusterIP": address, "ports": [{ "port": 80 }] })));
        api.put(&slice(&name, 8080, "TCP", &[&pods[0], &pods[1]]));
    }
    let start = Instant::now();
    let proxy = Proxy::start(world, api);
    let whole = start.elapsed();
    let mut best = Duration::MAX;
    for number in 0..3 {
        let start = Instant::now();
        let address = format!("10.78.9.{}", number + 1);
        proxy.service(&format!("late{number}"), &json!({ "clusterIP": address, "ports": [{ "port": 80 }] }));
        proxy.endpoints(&format!("late{number}"), 8080, "TCP", &[&pods[0]]);
        while world.ask("node", &format!("{address}:80")).is_err() {
            assert!(start.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
        best = best.min(start.elapsed());
    }
    println!("1000 services: all at once {whole:?}, one more {best:?}");
    assert!(best < Duration::from_millis(500), "{best:?}");
}
