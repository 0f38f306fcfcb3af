//! What `make bench` and `make soak` measure with: load on an API server, pods by way of it, and the machine's floors.
//!
//! Knows nothing of mini but its API: everything here runs against any API server or CRI socket. Each subcommand prints one
//! JSON object.

mod cri;
mod dns;
mod fake;
mod floor;
mod load;
mod pods;
mod soak;
mod target;
mod watch;
mod web;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about)]
struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, get, list, patch and delete ConfigMaps over some connections
    Load(load::Load),
    /// Watch ConfigMaps over some connections while others are made
    Watch(watch::Watch),
    /// A bare HTTPS server that keeps what is posted, durably, and answers with so many bytes: the floor of the others
    Floor(floor::Floor),
    /// Pods through the API, from create to Ready
    Pods(pods::Pods),
    /// Sandbox, create and start straight over CRI: the floor of a pod
    Cri(cri::Cri),
    /// Deployments on simulated nodes: bound, running, gone
    Fake(fake::Fake),
    /// Questions to a name server
    Dns(dns::Dns),
    /// A web server that does next to nothing: what reverse proxies are measured with
    WebServe(web::WebServe),
    /// Ask a web server for its page over some connections, for some seconds
    WebGet(web::WebGet),
    /// Write and watch while the server is being killed; then verify both
    Soak(soak::Soak),
}

fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<serde_json::Value> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Bench::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Load(command) => command.run().await,
            Command::Watch(command) => command.run().await,
            Command::Floor(command) => command.run().await,
            Command::Pods(command) => command.run().await,
            Command::Cri(command) => command.run().await,
            Command::Fake(command) => command.run().await,
            Command::Dns(command) => command.run(),
            Command::WebServe(command) => command.run().await,
            Command::WebGet(command) => command.run().await,
            Command::Soak(command) => command.run().await,
        }
    })
}

/// Median and the like of some durations, in milliseconds.
fn percentiles(mut milliseconds: Vec<f64>) -> serde_json::Value {
    milliseconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = milliseconds.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (last as f64 * share).round() as usize;
        milliseconds.get(index).map(|value| (value * 100.0).round() / 100.0)
    };
    serde_json::json!({"n": milliseconds.len(), "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0)})
}
