//! The dashboard: a web page, and the server that hands it out and passes its calls on to the Kubernetes API.
//!
//! Owns the pod's HTTPS socket. Knows nothing of kinds: that is the page's part (`dashboard/web`, built into
//! `dashboard/dist`). Invariant: the server has no rights of its own and keeps no credential: what a request may do is
//! what the token in that request may do.

mod assets;
mod forward;
mod listen;

use anyhow::Context as _;
use assets::Assets;
use forward::Api;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// What its pod passes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to serve the page, over HTTPS
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)))]
    listen: SocketAddr,
    /// The Kubernetes API's address
    #[arg(long, env = "KUBERNETES_SERVICE_HOST")]
    api_host: IpAddr,
    /// The Kubernetes API's port
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value_t = 443)]
    api_port: u16,
    /// The file with the authority that signed the Kubernetes API's certificate
    #[arg(long)]
    api_ca: PathBuf,
}

/// Names in the certificate. Nobody trusts it, but some clients refuse a certificate that names something else.
const NAMES: [&str; 4] =
    ["localhost", "kubernetes-dashboard", "kubernetes-dashboard.kube-system", "kubernetes-dashboard.kube-system.svc"];

/// Serves until SIGTERM.
///
/// # Errors
/// The server cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    let api = Api::new(SocketAddr::new(args.api_host, args.api_port), &args.api_ca)?;
    let assets = Assets::new().context("cannot prepare the page")?;
    let (certificate, key) = mini_pki::self_signed("kubernetes-dashboard", &NAMES)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(listen::serve(args.listen, &certificate, &key, assets, api))
}
