//! Names, asked by pods: with the search path of their resolver, and by the record.

use crate::cluster::{Cluster, IDLE, pod, until};
use std::time::{Duration, Instant};

const SERVE: &str = r#"command: [sh, -c, "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]"#;

/// A headless Service of two named pods.
const SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: set}
spec: {clusterIP: None, selector: {set: "yes"}, ports: [{name: peer, port: 7000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: set-0, labels: {set: "yes"}}
spec:
  hostname: zero
  subdomain: set
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: IMAGE, command: [sleep, "10000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: set-1, labels: {set: "yes"}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: IMAGE, command: [sleep, "10000"]}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
"#;

pub(crate) fn resolve(cluster: &Cluster, space: &str) {
    cluster.mini(["enable", "dns"]);
    cluster.create(space, SET);
    cluster.pod(space, "web", SERVE);
    cluster.pod(space, "client", IDLE);
    cluster.kubectl(space, &["expose", "pod/web", "--port=80", "--target-port=8080"]);
    let web = cluster.field(space, "service/web", ".spec.clusterIP");
    let api = cluster.field("default", "service/kubernetes", ".spec.clusterIP");

    // By the C library, as programs do: search path and ndots.
    let names = [
        ("web".to_owned(), &web),
        (format!("web.{space}"), &web),
        (format!("web.{space}.svc"), &web),
        (format!("WEB.{space}.svc.cluster.local"), &web),
        ("kubernetes.default".to_owned(), &api),
        ("kubernetes.default.svc.cluster.local.".to_owned(), &api),
        ("alias".to_owned(), &api),
    ];
    for (name, address) in &names {
        let said = cluster.sh(space, "client", &format!("getent hosts {name}"));
        assert_eq!(said.split_whitespace().next(), Some(address.as_str()), "{name}: {said}");
    }
    let page = cluster.sh(space, "client", "wget -qO- http://$(getent hosts web | cut -d' ' -f1)/");
    assert_eq!(page.trim(), "web");
    for name in ["nothing", "web.nowhere", "nothing.invalid"] {
        assert!(cluster.try_sh(space, "client", &format!("getent hosts {name}")).is_err(), "{name}");
    }

    // By the record.
    cluster.ready(space, "set-0");
    cluster.ready(space, "set-1");
    let ip = |pod: &str| cluster.field(space, &format!("pod/{pod}"), ".status.podIP");
    let (zero, one) = (ip("set-0"), ip("set-1"));
    let set = format!("set.{space}.svc.cluster.local");
    let ask = |kind: &str, name: &str| {
        cluster.try_sh(space, "client", &format!("nslookup -type={kind} {name}")).unwrap_or_else(|said| said)
    };
    until("both pods behind the headless service", || {
        let said = ask("a", &set);
        said.contains(&zero) && said.contains(&one)
    });
    let table = [
        ("a", format!("zero.{set}"), zero.clone()),
        ("a", format!("{}.{set}", one.replace('.', "-")), one.clone()),
        ("a", format!("{}.{space}.pod.cluster.local", one.replace('.', "-")), one.clone()),
        ("srv", format!("_peer._tcp.{set}"), format!("7000 zero.{set}")),
        ("ptr", backwards(&web), format!("web.{space}.svc.cluster.local")),
        ("ptr", backwards(&zero), format!("zero.{set}")),
        ("txt", "dns-version.cluster.local".to_owned(), "1.1.0".to_owned()),
    ];
    for (kind, name, expected) in &table {
        let said = ask(kind, name);
        assert!(said.contains(expected.as_str()), "{kind} {name}: {said}");
    }

    // Live within a second, both ways.
    cluster.kubectl(space, &["create", "service", "clusterip", "late", "--tcp=80"]);
    let begun = Instant::now();
    until("a new name", || cluster.try_sh(space, "client", "getent hosts late").is_ok());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    cluster.kubectl(space, &["delete", "service", "late"]);
    until("its end", || cluster.try_sh(space, "client", "getent hosts late").is_err());
}

fn backwards(address: &str) -> String {
    let octets: Vec<&str> = address.rsplit('.').collect();
    format!("{}.in-addr.arpa", octets.join("."))
}

/// What each policy makes of `resolv.conf`.
pub(crate) fn policies(cluster: &Cluster, space: &str) {
    let server = cluster.field("kube-system", "service/kube-dns", ".spec.clusterIP");
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let theirs: Vec<String> =
        words(&own, "nameserver").into_iter().filter(|server| !server.starts_with("127.")).collect();
    let search = format!("{space}.svc.cluster.local svc.cluster.local cluster.local");
    let first = |text: &str| {
        assert_eq!(words(text, "nameserver"), std::slice::from_ref(&server), "{text}");
        assert!(words(text, "search").join(" ").starts_with(&search), "{text}");
        assert_eq!(words(text, "options"), ["ndots:5"], "{text}");
    };
    for (name, spec) in [
        ("plain", ""),
        ("hostnet-first", "hostNetwork: true\ndnsPolicy: ClusterFirstWithHostNet"),
        ("default", "dnsPolicy: Default"),
        ("hostnet", "hostNetwork: true"),
        (
            "none",
            "dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.53], searches: [lan], options: [{name: ndots, value: '2'}]}",
        ),
    ] {
        let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        cluster.create(space, &format!("{}{spec}", pod(name, IDLE)));
    }
    let file = |name: &str| {
        cluster.ready(space, name);
        cluster.sh(space, name, "cat /etc/resolv.conf")
    };
    first(&file("plain"));
    first(&file("hostnet-first"));
    assert_eq!(words(&file("default"), "nameserver"), theirs);
    assert_eq!(words(&file("hostnet"), "nameserver"), words(&own, "nameserver"));
    let none = file("none");
    assert_eq!(words(&none, "nameserver"), ["192.0.2.53"]);
    assert_eq!(words(&none, "search"), ["lan"]);
    assert_eq!(words(&none, "options"), ["ndots:2"]);
}

/// All values that a file gives a key.
fn words(file: &str, key: &str) -> Vec<String> {
    let lines = file.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}
