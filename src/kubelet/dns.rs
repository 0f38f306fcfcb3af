//! What a pod's `resolv.conf` holds, by `dnsPolicy` and `dnsConfig`.
//!
//! Invariant: the file of a pod that runs follows the machine's own within a moment, so that a laptop may change its
//! network; where nothing changes, nothing runs.

use crate::agent::Agent;
use crate::volumes::pod_dir;
use crate::{Config, pod};
use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;
use mini_client::CancellationToken;
use mini_sys::changes::Changes;
use parking_lot::Mutex;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What programs of the machine resolve names by.
const OWN: &str = "/etc/resolv.conf";

/// What other programs of the machine write beside a `resolv.conf` that only leads to themselves: the real servers.
const REAL: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// More servers than these no resolver asks, and more search domains it does not try.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;

/// Held from the look at the machine's files to the writing of a pod's, so that the last one written is the newest.
static WRITING: Mutex<()> = Mutex::new(());

/// The pod's own file, which its containers have mounted; written at each container's start.
pub(crate) fn file(config: &Config, pod: &Pod) -> io::Result<PathBuf> {
    let _alone = WRITING.lock();
    let path = path(config, pod);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    write(&path, &text(&of_pod(config, pod)))?;
    Ok(path)
}

/// Keeps the files of the agent's pods in step with the machine's until `cancel`.
pub(crate) async fn follow(agent: Agent, cancel: CancellationToken) {
    let mut changes = match Changes::of([OWN].iter().chain(&REAL).map(PathBuf::from)) {
        Ok(changes) => changes,
        Err(error) => {
            tracing::warn!(%error, "changes of the machine's name servers will not reach pods that run");
            return;
        }
    };
    loop {
        let agent = agent.clone();
        let _ = tokio::task::spawn_blocking(move || rewrite(&agent)).await;
        match cancel.run_until_cancelled(changes.next()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "changes of the machine's name servers reach pods that run no more");
                return;
            }
            None => return,
        }
    }
}

fn rewrite(agent: &Agent) {
    let config = &agent.shared().config;
    for pod in agent.pods() {
        let _alone = WRITING.lock();
        let path = path(config, &pod);
        if !path.exists() {
            continue;
        }
        match write(&path, &text(&of_pod(config, &pod))) {
            Ok(true) => tracing::info!(pod = pod::full_name(&pod), "has the machine's new name servers"),
            Ok(false) => {}
            Err(error) => tracing::warn!(pod = pod::full_name(&pod), %error, "its resolv.conf cannot be written"),
        }
    }
}

fn path(config: &Config, pod: &Pod) -> PathBuf {
    pod_dir(config, pod).join("resolv.conf")
}

/// Writes where the text is another than what was written last, and says whether it is: what the pod itself made of its
/// file since then stays. In place, because containers have the file itself mounted, and at no moment is it empty.
fn write(path: &Path, text: &str) -> io::Result<bool> {
    let given = path.with_extension("given");
    if path.exists() && fs::read_to_string(&given).is_ok_and(|last| last == text) {
        return Ok(false);
    }
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    fs::write(given, text)?;
    Ok(true)
}

fn text(dns: &DnsConfig) -> String {
    let mut out = String::new();
    let mut line = |key: &str, values: &[String]| {
        if !values.is_empty() {
            out.push_str(&format!("{key} {}\n", values.join(" ")));
        }
    };
    line("search", &dns.searches);
    for server in &dns.servers {
        line("nameserver", std::slice::from_ref(server));
    }
    line("options", &dns.options);
    out
}

pub(crate) fn of_pod(config: &Config, pod: &Pod) -> DnsConfig {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| parse(&text));
    let own = read(OWN).unwrap_or_default();
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
    fn a_file_is_written_in_place_where_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let (long, short) =
            ("search corp lan\nnameserver 9.9.9.9\nnameserver 1.1.1.1\noptions edns0 ndots:2\n", "nameserver ::1\n");
        assert_eq!(text(&parse(long)), long);
        assert_eq!(text(&DnsConfig::default()), "");
        for (wanted, changes) in [(long, true), (long, false), (short, true), (long, true)] {
            assert_eq!(write(&path, wanted).unwrap(), changes);
            assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
        }
        let mounted = File::open(&path).unwrap();
        write(&path, short).unwrap();
        assert_eq!(io::read_to_string(mounted).unwrap(), short);
        // A sidecar's own server stays until the machine has others.
        fs::write(&path, "nameserver 10.8.0.1\n").unwrap();
        assert!(!write(&path, short).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 10.8.0.1\n");
        assert!(write(&path, long).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), long);
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
