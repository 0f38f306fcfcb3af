//! The table of settings.

use crate::Config;
use ipnet::Ipv4Net;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One setting.
pub struct Field {
    /// As in the file and after `--set`. The environment has `MINI_` and the same in capitals.
    pub key: &'static str,
    /// As text; empty: found out at run time, as `doc` says.
    pub default: &'static str,
    pub doc: &'static str,
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Field {
    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.key)
    }
}

/// The environment variable that sets `key`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("MINI_{}", key.to_uppercase().replace('-', "_"))
}

pub const FIELDS: &[Field] = &[
    Field {
        key: "data-dir",
        default: "/var/lib/mini",
        doc: "Everything that must survive a restart: the database, certificates, containerd's images and containers. \
              Bridge, nftables table, cgroups and run-dir are named after it, so several instances live side by side.",
        set: |config, text| absolute(text).map(|path| config.data_dir = path),
    },
    Field {
        key: "run-dir",
        default: "",
        doc: "Sockets and other files that go away with a reboot. /run/mini, or /run/mini-<id> for another data-dir.",
        set: |config, text| absolute(text).map(|path| config.run_dir = path),
    },
    Field {
        key: "node-name",
        default: "",
        doc: "The node's name, fixed at the first start. The host name in lower case, what DNS does not allow made into \"-\".",
        set: |config, text| {
            if is_dns_subdomain(text) {
                config.node_name_setting = Some(text.to_owned());
                return Ok(());
            }
            Err("a node's name is at most 253 lower-case letters, digits, \"-\" and \".\", with a letter or digit at both ends".to_owned())
        },
    },
    Field {
        key: "node-ip",
        default: "",
        doc: "The node's address. That of the default route, else any other of the machine, else that of the pod bridge.",
        set: |config, text| parse(text, "an IP address").map(|ip| config.node_ip_setting = Some(ip)),
    },
    Field {
        key: "api-address",
        default: "0.0.0.0",
        doc: "Where the API server listens. 0.0.0.0 is all addresses of the machine.",
        set: |config, text| parse(text, "an IP address").map(|ip| config.api_address = ip),
    },
    Field {
        key: "api-port",
        default: "16443",
        doc: "The API server's port.",
        set: |config, text| port(text).map(|port| config.api_port = port),
    },
    Field {
        key: "kubelet-port",
        default: "10250",
        doc: "The port through which the API server reaches logs, exec and metrics of the node.",
        set: |config, text| port(text).map(|port| config.kubelet_port = port),
    },
    Field {
        key: "pod-cidr",
        default: "10.1.0.0/16",
        doc: "Addresses of pods. Must not overlap service-cidr nor any network of the machine.",
        set: |config, text| network(text, 24).map(|net| config.pod_cidr = net),
    },
    Field {
        key: "service-cidr",
        default: "10.152.183.0/24",
        doc: "Virtual addresses of Services. Must not overlap pod-cidr nor any network of the machine.",
        set: |config, text| network(text, 28).map(|net| config.service_cidr = net),
    },
    Field {
        key: "node-port-range",
        default: "30000-32767",
        doc: "Ports that Services of type NodePort and LoadBalancer get.",
        set: |config, text| {
            let wanted = "it must be two ports with \"-\" between them, the smaller first";
            let (first, last) = text.split_once('-').ok_or(wanted)?;
            let (first, last) = (port(first.trim())?, port(last.trim())?);
            if first > last {
                return Err(wanted.to_owned());
            }
            config.node_port_range = first..=last;
            Ok(())
        },
    },
    Field {
        key: "cluster-domain",
        default: "cluster.local",
        doc: "The DNS domain of the cluster.",
        set: |config, text| {
            if is_dns_subdomain(text) {
                config.cluster_domain = text.to_owned();
                return Ok(());
            }
            Err("it must be a DNS name in lower case, such as cluster.local".to_owned())
        },
    },
    Field {
        key: "cluster-dns",
        default: "10.152.183.10",
        doc: "The Service address that pods ask for names. Inside service-cidr.",
        set: |config, text| parse(text, "an IPv4 address").map(|ip| config.cluster_dns = ip),
    },
    Field {
        key: "extra-sans",
        default: "[]",
        doc: "Further names and addresses in the API server's certificate: a list.",
        set: |config, text| {
            config.extra_sans =
                text.split(',').map(str::trim).filter(|san| !san.is_empty()).map(str::to_owned).collect();
            match config.extra_sans.iter().find(|san| san.parse::<IpAddr>().is_err() && !is_dns_subdomain(san)) {
                Some(san) => Err(format!("{san:?} is neither a DNS name nor an IP address")),
                None => Ok(()),
            }
        },
    },
    Field {
        key: "token-auth-file",
        default: "",
        doc: "A file of bearer tokens, read at the start: a line each of token,user,uid,\"group1,group2\", the groups optional. \
              Nobody but its owner may be able to read it.",
        set: |config, text| absolute(text).map(|path| config.token_auth_file = Some(path)),
    },
    Field {
        key: "audit-policy-file",
        default: "",
        doc: "What the audit log records: a Policy of audit.k8s.io/v1. Without it there is no audit log.",
        set: |config, text| absolute(text).map(|path| config.audit_policy_file = Some(path)),
    },
    Field {
        key: "audit-log-path",
        default: "",
        doc: "The audit log, a line of JSON for each event. log/audit/audit.log in data-dir.",
        set: |config, text| absolute(text).map(|path| config.audit_log_path = Some(path)),
    },
    Field {
        key: "audit-log-maxsize",
        default: "100",
        doc: "Megabytes after which the audit log is turned over; what was written becomes a backup with the time in its name.",
        set: |config, text| {
            config.audit_log_maxsize = parse(text, "a number of megabytes")?;
            if config.audit_log_maxsize == 0 { Err("it must be at least one megabyte".to_owned()) } else { Ok(()) }
        },
    },
    Field {
        key: "audit-log-maxage",
        default: "0",
        doc: "Days after which backups of the audit log are removed; 0 for never.",
        set: |config, text| parse(text, "a number of days").map(|days| config.audit_log_maxage = days),
    },
    Field {
        key: "audit-log-maxbackup",
        default: "10",
        doc: "How many backups of the audit log stay; 0 for all.",
        set: |config, text| parse(text, "a number").map(|count| config.audit_log_maxbackup = count),
    },
    Field {
        key: "containerd",
        default: "containerd",
        doc: "The containerd executable: a path, or a name to look for in PATH. mini runs a private one; a system containerd is not touched.",
        set: |config, text| {
            config.containerd = PathBuf::from(text);
            Ok(())
        },
    },
    Field {
        key: "kubectl",
        default: "",
        doc: "What `mini kubectl` runs. <data-dir>/bin/kubectl if that is there, else kubectl in PATH.",
        set: |config, text| {
            config.kubectl = Some(PathBuf::from(text));
            Ok(())
        },
    },
    Field {
        key: "max-pods",
        default: "110",
        doc: "How many pods the node takes.",
        set: |config, text| {
            let most = parse::<u16>(text, "a number up to 65535")?;
            config.max_pods = most;
            if most == 0 { Err("a node must take at least one pod".to_owned()) } else { Ok(()) }
        },
    },
    Field {
        key: "addons",
        default: "[dns, metrics-server]",
        doc: "What the first start enables: a list of addons, [] for none. Later, use `mini enable` and `mini disable`.",
        set: |config, text| {
            // As a default or in the environment it may stand in brackets, as in the file.
            let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            config.addons =
                inside.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            match config.addons.iter().find(|name| !is_dns_subdomain(name) || name.contains('.')) {
                Some(name) => Err(format!("{name:?} is no addon's name; `mini addons list` shows those there are")),
                None => Ok(()),
            }
        },
    },
    Field {
        key: "addons-dir",
        default: "/etc/mini/addons",
        doc: "Addons of your own: a directory each, as addons/README.md describes. None may have the name of a core addon.",
        set: |config, text| absolute(text).map(|path| config.addons_dir = path),
    },
    Field {
        key: "api-only",
        default: "false",
        doc: "Only the API, its controllers and the scheduler: no kubelet, no containers, no network. Needs neither root nor containerd; \
              for tests of what speaks to the API.",
        set: |config, text| parse(text, "true or false").map(|flag| config.api_only = flag),
    },
    Field {
        key: "fake-nodes",
        default: "0",
        doc: "How many made-up nodes there are beside the real one, up to 5000: fake-1, fake-2 and so on. Their pods run in name only, \
              those of Jobs succeed after a second. For tests of operators.",
        set: |config, text| {
            config.fake_nodes = parse(text, "a number up to 5000")?;
            if config.fake_nodes > 5000 { Err("it must be a number up to 5000".to_owned()) } else { Ok(()) }
        },
    },
    Field {
        key: "log-level",
        default: "info",
        doc: "error, warn, info, debug or trace; or by module, such as \"info,mini_kubelet=debug\".",
        set: |config, text| {
            let known = |level: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
            let level = |part: &str| part.rsplit_once('=').map_or(part, |(_, level)| level).trim().to_lowercase();
            if !text.split(',').all(|part| known(&level(part))) {
                return Err(
                    "it must be error, warn, info, debug or trace, or module=level with commas between".to_owned()
                );
            }
            config.log_level = text.to_owned();
            Ok(())
        },
    },
];

/// The sample configuration file: every setting with its default, commented out.
#[must_use]
pub fn sample() -> String {
    let mut text = String::from(
        "# Configuration of mini: /etc/mini/config.yaml, or the file named with --config.\n\
         # Each setting can also be given in the environment (MINI_API_PORT=6443) or as `--set api-port=6443`,\n\
         # which go before the file in this order. Lines that start with # show the defaults.\n",
    );
    for field in FIELDS {
        text.push('\n');
        for line in wrapped(field.doc, 110) {
            text.push_str("# ");
            text.push_str(&line);
            text.push('\n');
        }
        let space = if field.default.is_empty() { "" } else { " " };
        text.push_str(&format!("#{}:{space}{}\n", field.key, field.default));
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("it must be {what}"))
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain && path.parent().is_some() {
        // Without doubled or trailing slashes: names are derived from it.
        return Ok(path.components().collect());
    }
    Err("it must be an absolute path without \"..\"".to_owned())
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a port is a number from 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn network(text: &str, longest: u8) -> Result<Ipv4Net, String> {
    let wanted = || format!("it must be an IPv4 network such as 10.1.0.0/16, with a prefix from 8 to {longest}");
    let net: Ipv4Net = text.parse().map_err(|_| wanted())?;
    if !(8..=longest).contains(&net.prefix_len()) {
        return Err(wanted());
    }
    if net.addr() != net.network() {
        return Err(format!("that is an address inside a network; the network is {}", net.trunc()));
    }
    Ok(net)
}

pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}
