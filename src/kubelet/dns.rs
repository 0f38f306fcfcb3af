//! What a pod's `resolv.conf` holds, by `dnsPolicy` and `dnsConfig`.

use crate::Config;
use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;

/// What other programs of the machine write beside a `resolv.conf` that only leads to themselves: the real servers.
const REAL: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// More servers than these no resolver asks, and more search domains it does not try.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

pub(crate) fn of_pod(config: &Config, pod: &Pod) -> DnsConfig {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| parse(&text));
    let own = read("/etc/resolv.conf").unwrap_or_default();
    let host =
        if crate::pod::host_network(pod) { own } else { reachable(own, REAL.iter().filter_map(|path| read(path))) };
    resolve(pod, config.cluster_dns, &config.cluster_domain, &host)
}

/// A configuration for a pod's own network, where the machine's loopback is not: a resolver there is seen through, or
/// left out.
fn reachable(mut own: DnsConfig, behind: impl IntoIterator<Item = DnsConfig>) -> DnsConfig {
    let is_local = |server: &String| server.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
    if !own.servers.iter().any(is_local) {
        return own;
    }
    let real = behind.into_iter().find(|real| !real.servers.is_empty() && !real.servers.iter().any(is_local));
    real.unwrap_or_else(|| {
        own.servers.retain(|server| !is_local(server));
        own
    })
}

fn parse(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let rest = words.map(str::to_owned);
        match key {
            "nameserver" => out.servers.extend(rest.take(1)),
            "search" => out.searches = rest.filter(|s| s != ".").collect(),
            "options" => out.options = rest.collect(),
            _ => {}
        }
    }
    out
}

fn resolve(pod: &Pod, cluster_dns: Option<IpAddr>, domain: &str, host: &DnsConfig) -> DnsConfig {
    let Some(spec) = &pod.spec else { return host.clone() };
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network.unwrap_or(false);
    let cluster_first = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network);
    let mut out = match (policy, cluster_dns) {
        ("None", _) => DnsConfig::default(),
        (_, Some(server)) if cluster_first => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            for search in &host.searches {
                if !searches.contains(search) {
                    searches.push(search.clone());
                }
            }
            DnsConfig { servers: vec![server.to_string()], searches, options: vec!["ndots:5".to_owned()] }
        }
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        let add = |to: &mut Vec<String>, from: &Option<Vec<String>>| {
            for item in from.iter().flatten() {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
        };
        add(&mut out.servers, &own.nameservers);
        add(&mut out.searches, &own.searches);
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            out.options.retain(|o| o.split(':').next() != Some(&name));
            out.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name,
            });
        }
    }
    out.servers.truncate(MOST_SERVERS);
    out.searches.truncate(MOST_SEARCHES);
    if out.servers.is_empty() && out.searches.is_empty() && out.options.is_empty() {
        // An empty configuration makes containerd copy the machine's file, which may not exist.
        out.options.push("ndots:1".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: serde_json::Value) -> Pod {
        let mut pod = json!({"metadata": {"namespace": "ns"}, "spec": {"containers": []}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn policies_choose_servers() {
        let host = parse("nameserver 9.9.9.9\nsearch corp\noptions edns0");
        let dns = Some("10.0.0.10".parse().unwrap());
        let cluster: &[&str] = &["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp"];
        let own = json!({"nameservers": ["1.1.1.1", "10.0.0.10"], "searches": ["corp", "lan"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        // The pod's spec; its servers, search paths and options.
        type Row<'a> = (Value, &'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (json!({}), &["10.0.0.10"], cluster, &["ndots:5"]),
            (json!({"dnsPolicy": "ClusterFirst"}), &["10.0.0.10"], cluster, &["ndots:5"]),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), &["9.9.9.9"], &["corp"], &["edns0"]),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                &["10.0.0.10"],
                cluster,
                &["ndots:5"],
            ),
            (json!({"dnsPolicy": "Default"}), &["9.9.9.9"], &["corp"], &["edns0"]),
            (
                json!({"dnsPolicy": "None", "dnsConfig": own}),
                &["1.1.1.1", "10.0.0.10"],
                &["corp", "lan"],
                &["ndots:2", "edns0"],
            ),
            (
                json!({"dnsConfig": own}),
                &["10.0.0.10", "1.1.1.1"],
                &[cluster, &["lan"]].concat(),
                &["ndots:2", "edns0"],
            ),
        ];
        for (spec, servers, searches, options) in table {
            let found = resolve(&pod(spec.clone()), dns, "cluster.local", &host);
            assert_eq!(found.servers, *servers, "{spec}");
            assert_eq!(found.searches, *searches, "{spec}");
            assert_eq!(found.options, *options, "{spec}");
        }
    }

    #[test]
    fn resolvers_on_the_loopback_are_seen_through() {
        let stub = || parse("nameserver 127.0.0.53\nsearch lan");
        let real = parse("nameserver 192.168.1.1\nsearch lan");
        assert_eq!(reachable(stub(), [real.clone()]).servers, ["192.168.1.1"]);
        assert_eq!(reachable(stub(), [stub(), real]).servers, ["192.168.1.1"]);
        // With nothing behind it, nobody can be asked; not by asking oneself either.
        let alone = reachable(stub(), []);
        assert!(alone.servers.is_empty());
        assert_eq!(alone.searches, ["lan"]);
        let mixed = parse("nameserver ::1\nnameserver 9.9.9.9");
        assert_eq!(reachable(mixed, []).servers, ["9.9.9.9"]);
    }
}
