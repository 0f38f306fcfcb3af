//! What a pod's `resolv.conf` holds, by `dnsPolicy` and `dnsConfig`.

use crate::Config;
use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::path::Path;

pub(crate) fn of_pod(config: &Config, pod: &Pod) -> DnsConfig {
    resolve(pod, config.cluster_dns, &config.cluster_domain, &host_resolv_conf())
}

/// The machine's own file; behind systemd-resolved the one with the real servers, as its stub cannot be reached from pods.
fn host_resolv_conf() -> DnsConfig {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok().map(|text| parse(&text));
    let own = read("/etc/resolv.conf").unwrap_or_default();
    if own.servers.iter().any(|s| s == "127.0.0.53")
        && let Some(real) = read("/run/systemd/resolve/resolv.conf")
    {
        return real;
    }
    own
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
    if out.servers.is_empty() && out.searches.is_empty() && out.options.is_empty() {
        // An empty configuration makes containerd copy the machine's file, which may not exist.
        out.options.push("ndots:1".to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn policies_choose_servers() {
        let host = parse("nameserver 9.9.9.9\nsearch corp\noptions edns0");
        let dns = Some("10.0.0.10".parse().unwrap());
        let of = |spec| resolve(&pod(spec), dns, "cluster.local", &host);
        let first = of(serde_json::json!({"containers": []}));
        assert_eq!(first.servers, ["10.0.0.10"]);
        assert_eq!(first.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp"]);
        let own = of(serde_json::json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!((own.servers, own.options), (vec!["1.1.1.1".to_owned()], vec!["ndots:2".to_owned()]));
        assert_eq!(of(serde_json::json!({"containers": [], "hostNetwork": true})).servers, ["9.9.9.9"]);
    }
}
