//! ConfigMaps over some connections, each with one request in flight.

use crate::target::Target;
use anyhow::bail;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Load {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    #[arg(long, default_value_t = 20_000)]
    requests: usize,
    /// Against the floor server, which knows only POST
    #[arg(long)]
    only_create: bool,
}

#[derive(Clone, Copy)]
enum What {
    Create,
    Get,
    Patch,
    Delete,
}

const NAMESPACE: &str = "/api/v1/namespaces/default/configmaps";

impl Load {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let run = std::process::id();
        let load = Arc::new(self);
        let mut results = json!({"connections": load.connections});
        let phases: &[(&str, What)] = if load.only_create {
            &[("create", What::Create)]
        } else {
            &[("create", What::Create), ("get", What::Get), ("merge-patch", What::Patch), ("delete", What::Delete)]
        };
        for (name, what) in phases {
            results[*name] = phase(&load, *what, run).await?;
        }
        Ok(results)
    }
}

async fn phase(load: &Arc<Load>, what: What, run: u32) -> anyhow::Result<Value> {
    let tls = load.target.connector()?;
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(load.target.connect(&tls).await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let workers: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (load, next) = (Arc::clone(load), Arc::clone(&next));
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= load.requests {
                        return anyhow::Ok(took);
                    }
                    let (method, path, kind, body) = request(what, run, n);
                    let sent = Instant::now();
                    let answer = connection.send(method, &path, kind, body).await?;
                    let code = answer.status();
                    let body = answer.into_body().collect().await?.to_bytes();
                    if !code.is_success() {
                        bail!("{path}: {code}: {}", String::from_utf8_lossy(&body));
                    }
                    took.push(sent.elapsed().as_secs_f64() * 1e3);
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut result = crate::percentiles(took);
    #[allow(clippy::cast_precision_loss)]
    let rate = load.requests as f64 / seconds;
    result["per_second"] = json!(rate.round());
    Ok(result)
}

fn request(what: What, run: u32, n: usize) -> (Method, String, &'static str, Bytes) {
    let name = format!("bench-{run}-{n}");
    let path = format!("{NAMESPACE}/{name}");
    let json = "application/json";
    match what {
        What::Create => {
            // Half a kilobyte of content, like a small real one.
            let value = "configuration ".repeat(36);
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"run":"{run}"}}}},"data":{{"key":"{value}"}}}}"#
            );
            (Method::POST, NAMESPACE.to_owned(), json, body.into())
        }
        What::Get => (Method::GET, path, json, Bytes::new()),
        What::Patch => {
            (Method::PATCH, path, "application/merge-patch+json", format!(r#"{{"data":{{"n":"{n}"}}}}"#).into())
        }
        What::Delete => (Method::DELETE, path, json, Bytes::new()),
    }
}
