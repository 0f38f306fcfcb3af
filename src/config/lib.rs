//! One typed configuration from defaults, file, environment and flags, wholly checked before anything is bound or written.
//!
//! `fields` is the one table: file keys, environment names, defaults, documentation and the sample file come from it.
//! Invariant: a `Config` that exists is consistent in itself; `Config::check_machine` says whether it fits this machine.

pub mod admin;
mod fields;
mod instance;
mod machine;
mod sources;

pub use fields::{FIELDS, Field, sample, variable};
pub use instance::{DEFAULT_DATA_DIR, Instance};
pub use machine::{find_program, route_into};
pub use sources::{DEFAULT_FILE, Sources};

use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Why a configuration was refused. The text is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid YAML: {message}", path.display())]
    Yaml { path: PathBuf, message: String },
    #[error("{place}: there is no setting `{key}`{hint}")]
    UnknownKey { place: String, key: String, hint: String },
    #[error("{place}: `{key}` is {value:?}, but {message}")]
    Value { place: String, key: &'static str, value: String, message: String },
    /// Settings that are fine each but not together, or not on this machine.
    #[error("{0}")]
    Unfit(String),
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// What was set; `node_name()` is what holds.
    pub node_name_setting: Option<String>,
    /// What was set; `node_ip()` is what holds.
    pub node_ip_setting: Option<IpAddr>,
    pub api_address: IpAddr,
    pub api_port: u16,
    pub kubelet_port: u16,
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub node_port_range: RangeInclusive<u16>,
    pub cluster_domain: String,
    pub cluster_dns: Ipv4Addr,
    /// Further names and addresses in the API server's certificate.
    pub extra_sans: Vec<String>,
    /// Static bearer tokens, if there are any.
    pub token_auth_file: Option<PathBuf>,
    /// None: there is no audit log.
    pub audit_policy_file: Option<PathBuf>,
    /// What was set; `audit_log()` is what holds.
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes.
    pub audit_log_maxsize: u32,
    /// Days; 0 is no limit.
    pub audit_log_maxage: u32,
    /// 0 is no limit.
    pub audit_log_maxbackup: usize,
    /// A path, or a name to look for in PATH.
    pub containerd: PathBuf,
    /// A path, or `None` to look beside the data and in PATH.
    pub kubectl: Option<PathBuf>,
    pub max_pods: u16,
    /// What the first start enables.
    pub addons: Vec<String>,
    /// Where the user's own addons are.
    pub addons_dir: PathBuf,
    /// Without kubelet, containerd and network.
    pub api_only: bool,
    /// How many made-up nodes there are.
    pub fake_nodes: usize,
    /// In the syntax of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// Names on the machine that belong to this instance.
    pub instance: Instance,
}

impl Config {
    /// Where the API server listens.
    #[must_use]
    pub fn api_listen(&self) -> SocketAddr {
        SocketAddr::new(self.api_address, self.api_port)
    }

    /// How programs on this machine reach the API.
    #[must_use]
    pub fn api_url(&self) -> String {
        let host = match self.api_address {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            address => address,
        };
        format!("https://{}", SocketAddr::new(host, self.api_port))
    }

    /// The address of the Service `default/kubernetes`: the first of its range.
    #[must_use]
    pub fn api_service_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()) + 1)
    }

    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("state.db")
    }

    #[must_use]
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// The root of the kubelet's pod directories, in the shape CSI drivers expect.
    #[must_use]
    pub fn kubelet_dir(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }

    /// The logs of containers, in the shape of `/var/log/pods`.
    #[must_use]
    pub fn pod_logs_dir(&self) -> PathBuf {
        self.data_dir.join("log/pods")
    }

    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.audit_log_path.clone().unwrap_or_else(|| self.data_dir.join("log/audit/audit.log"))
    }

    /// The log of a daemon that systemd does not run.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.data_dir.join("mini.log")
    }

    /// What this instance changed in `/proc/sys`, with the values from before, so that `reset` can restore them.
    #[must_use]
    pub fn sysctls_file(&self) -> PathBuf {
        self.data_dir.join("sysctls.json")
    }

    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }

    /// Process id and start time of the running server.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir.join("mini.pid")
    }

    /// Does it have the short names, and the systemd unit?
    #[must_use]
    pub fn is_default_instance(&self) -> bool {
        self.instance.is_default()
    }
}

#[cfg(test)]
mod tests;
