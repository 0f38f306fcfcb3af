//! The ingress controller: a reverse proxy that follows Ingresses.
//!
//! Knows the cluster through the API only, and sends requests to endpoints directly. Invariant: a change of the cluster
//! makes a new route table, which is put in the old one's place at once; no connection notices.

mod build;
mod certificates;
mod endpoints;
mod follow;
mod forward;
mod listen;
mod page;
mod path;
mod proxy;
mod settings;
mod table;
mod tls;
mod tunnel;
mod upstream;

use anyhow::Context as _;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::{Doors, Workers};
use mini_client::{CancellationToken, Client};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// More workers than this gain nothing on one machine that also runs the backends.
const WORKERS_MAX: usize = 4;

/// What its pod passes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen for HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Where to listen for HTTPS
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    https: SocketAddr,
    /// The port at which clients reach HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    http_port: u16,
    /// The port at which clients reach HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    https_port: u16,
    /// Where to answer whether the routes are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10254")]
    health: SocketAddr,
    /// The address at which Ingresses are reached, written to their status
    #[arg(long, env = "NODE_IP")]
    address: Option<IpAddr>,
    /// Threads that serve requests: as many as processors, but no more than four
    #[arg(long)]
    workers: Option<usize>,
}

impl Args {
    fn doors(&self) -> Doors {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        Doors {
            http: self.http,
            https: self.https,
            http_port: self.http_port,
            https_port: self.https_port,
            workers: self.workers.unwrap_or_else(processors),
        }
    }
}

/// Serves until SIGTERM.
///
/// # Errors
/// The server cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let workers = runtime.block_on(control(&args))?;
    // Requests under way get their time while nothing is followed any more.
    drop(runtime);
    workers.join();
    Ok(())
}

/// Follows the cluster until SIGTERM; the workers, which drain by then.
async fn control(args: &Args) -> anyhow::Result<Workers> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cluster = kube::Config::incluster().context("this is to be run in a pod")?;
    let client = Client::try_from(cluster).context("cannot reach the API server")?;
    let (cancel, live, healthy) = (CancellationToken::new(), follow::nothing(), Arc::new(AtomicBool::new(false)));
    tokio::spawn(health(TcpListener::bind(args.health).await?, healthy.clone()));
    let follower = follow::Follower::new(&client, &live, args.address, &cancel)?;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    tokio::spawn(follower.run(move || {
        let _ = ready.send(());
    }));
    tokio::select! {
        ready = is_ready => ready.context("the cluster cannot be followed")?,
        _ = terminate.recv() => anyhow::bail!("ended before the cluster was seen"),
    }
    let workers = Workers::spawn(args.doors(), &live, &cancel)?;
    healthy.store(true, Ordering::Release);
    tracing::info!(http = %workers.http, https = %workers.https, "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cancel.cancel();
    Ok(workers)
}

/// Answers 200 once routes are served.
async fn health(socket: TcpListener, healthy: Arc<AtomicBool>) {
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            // Out of file descriptors, mostly: the next moment may be better.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let healthy = healthy.clone();
        let service = service_fn(move |_| {
            let (status, word) = match healthy.load(Ordering::Acquire) {
                true => (StatusCode::OK, "ok\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "the cluster has not been seen yet\n"),
            };
            let mut response = Response::new(Full::new(Bytes::from_static(word.as_bytes())));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        });
        let serve = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(serve.await) });
    }
}

#[cfg(test)]
mod tests;
