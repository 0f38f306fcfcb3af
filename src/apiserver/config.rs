//! What the API server is told at its start.

use crate::UserInfo;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// A certificate chain and its private key, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How tokens of service accounts are made and known.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// `iss` of the tokens, such as `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// The private key that signs them, PEM.
    pub key: PathBuf,
}

/// How the server calls the kubelet.
#[derive(Clone, Debug)]
pub struct KubeletClient {
    pub tls: TlsFiles,
    /// The authority of the kubelet's serving certificate.
    pub ca: PathBuf,
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The address that the `kubernetes` Service leads to.
    pub advertise: IpAddr,
    pub tls: TlsFiles,
    /// The authority of client certificates.
    pub client_ca: PathBuf,
    pub service_account: ServiceAccounts,
    pub service_cidr: Ipv4Net,
    pub node_ports: RangeInclusive<u16>,
    pub cluster_domain: String,
    /// None: logs, exec and the other streams answer 503.
    pub kubelet_client: Option<KubeletClient>,
    /// Bearer tokens known beforehand, upstream's `--token-auth-file`.
    pub static_tokens: BTreeMap<String, UserInfo>,
    /// None: there is no audit log.
    pub audit: Option<crate::audit::Settings>,
}
