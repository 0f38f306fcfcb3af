//! The cluster's DNS server: names of Services and pods from the API, everything else from other servers.
//!
//! Knows the API as any pod does, and nothing of the node. Invariant: a name of the cluster is answered from memory, also
//! while the API is away; a name of the world is answered or failed within two seconds.

mod answer;
mod cache;
mod facts;
mod forward;
mod health;
mod index;
mod listen;
mod message;
mod metrics;
mod names;
mod packet;
mod resolv_conf;
mod server;
mod upstream;
mod watch;
mod zone;

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod wire_tests;

use anyhow::Context;
use health::Health;
use mini_client::{CancellationToken, Client};
use server::Server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What its pod passes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's domain
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// Where to answer, over UDP and TCP
    #[arg(long, default_value = "[::]:1053")]
    listen: SocketAddr,
    /// Where names outside the cluster are asked for; without any, the servers of resolv.conf
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS[:PORT]")]
    forwarders: Vec<String>,
    #[arg(long, default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// How many seconds clients may remember an answer about the cluster
    #[arg(long, default_value_t = 5)]
    ttl: u32,
    /// Ports of /health, /ready and /metrics
    #[arg(long, default_values_t = [8080, 8181, 9153], value_delimiter = ',')]
    status_ports: Vec<u16>,
    /// How many seconds to go on answering once told to end, while clients turn elsewhere
    #[arg(long, default_value_t = 1)]
    lameduck: u64,
    /// Reach the API as this file says instead of as a pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Serves until SIGTERM.
///
/// # Errors
/// The server cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(serve(args, workers))
}

async fn serve(args: Args, workers: usize) -> anyhow::Result<()> {
    let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Arc::new(Server {
        zone: zone::Zone::new(&args.domain, args.ttl).context("the domain is not a name")?,
        index: Arc::default(),
        forwarders: forward::Forwarders::new(&named(&args)?),
        metrics: metrics::Metrics::default(),
    });
    let cannot = |address: SocketAddr| move || format!("cannot listen on {address}");
    let address = listen::usable(args.listen);
    let waiting = listen::waiting();
    for _ in 0..workers {
        let socket = listen::datagrams(address).with_context(cannot(address))?;
        tokio::spawn(listen::serve_datagrams(server.clone(), Arc::new(socket), waiting.clone()));
    }
    let listener = TcpListener::bind(address).await.with_context(cannot(address))?;
    tokio::spawn(listen::serve_connections(server.clone(), listener));
    let health = Arc::new(Health { server: server.clone(), leaving: AtomicBool::new(false) });
    for port in &args.status_ports {
        let address = SocketAddr::new(address.ip(), *port);
        let listener = TcpListener::bind(address).await.with_context(cannot(address))?;
        tokio::spawn(health::serve(health.clone(), listener));
    }
    let cancel = CancellationToken::new();
    if server.forwarders.is_empty() {
        tokio::spawn(resolv_conf::follow(args.resolv_conf.clone(), server.clone(), cancel.clone()));
    }
    server.index.follow(&client(&args).await?, &cancel);

    tokio::select! {
        _ = end.recv() => {}
        _ = interrupt.recv() => {}
    }
    health.leaving.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(args.lameduck)).await;
    cancel.cancel();
    Ok(())
}

/// The servers that whoever started this one named.
fn named(args: &Args) -> anyhow::Result<Vec<SocketAddr>> {
    let named = args.forwarders.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    named.map(|text| resolv_conf::address(text).map_err(anyhow::Error::msg)).collect()
}

async fn client(args: &Args) -> anyhow::Result<Client> {
    let config = match &args.kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?
        }
        // By address: names are what this very server is asked for.
        None => kube::Config::incluster_env()?,
    };
    Ok(Client::try_from(config)?)
}
