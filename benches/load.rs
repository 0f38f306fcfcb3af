//! ConfigMaps over some connections, each with one request in flight.

use crate::target::{Connection, Target};
use anyhow::bail;
use bytes::Bytes;
use clap::ValueEnum;
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
    /// What to do, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "create,get,merge-patch,delete")]
    only: Vec<What>,
    /// What is read instead of ConfigMaps: the floor server knows none
    #[arg(long)]
    path: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Create,
    Get,
    /// All of them, some times, over one connection
    List,
    /// The second page of 500, some times, over one connection
    Page,
    MergePatch,
    Delete,
}

const NAMESPACE: &str = "/api/v1/namespaces/default/configmaps";
const LISTS: usize = 20;

impl Load {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let run = std::process::id();
        let load = Arc::new(self);
        let mut results = json!({"connections": load.connections});
        for what in &load.only {
            let name = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            results[name] = match what {
                What::List => lists(&load, NAMESPACE.to_owned()).await?,
                What::Page => lists(&load, second_page(&load).await?).await?,
                _ => phase(&load, *what, run).await?,
            };
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
    let (next, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let workers: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (load, next, bytes) = (Arc::clone(load), Arc::clone(&next), Arc::clone(&bytes));
            tokio::spawn(async move {
                let mut took = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= load.requests {
                        return anyhow::Ok(took);
                    }
                    let (method, mut path, kind, body) = request(what, run, n);
                    if let (What::Get, Some(other)) = (what, &load.path) {
                        path.clone_from(other);
                    }
                    let sent = Instant::now();
                    bytes.fetch_add(answer(&mut connection, method, &path, kind, body).await?.len(), Ordering::Relaxed);
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
    result["bytes"] = json!(bytes.load(Ordering::Relaxed) / load.requests.max(1));
    Ok(result)
}

/// Reads one path again and again.
async fn lists(load: &Load, path: String) -> anyhow::Result<Value> {
    let mut connection = load.target.connect(&load.target.connector()?).await?;
    let path = load.path.clone().unwrap_or(path);
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let sent = Instant::now();
        bytes = answer(&mut connection, Method::GET, &path, "", Bytes::new()).await?.len();
        took.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    let mut result = crate::percentiles(took);
    result["bytes"] = json!(bytes);
    Ok(result)
}

async fn second_page(load: &Load) -> anyhow::Result<String> {
    let first = format!("{NAMESPACE}?limit=500");
    if load.path.is_some() {
        return Ok(first);
    }
    let mut connection = load.target.connect(&load.target.connector()?).await?;
    let page = connection.json(Method::GET, &first, &Value::Null).await?;
    let token = page.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or_default();
    Ok(format!("{first}&continue={token}"))
}

/// The body of an answer that must be a success.
pub(crate) async fn answer(
    connection: &mut Connection,
    method: Method,
    path: &str,
    kind: &str,
    body: Bytes,
) -> anyhow::Result<Bytes> {
    let answer = connection.send(method, path, kind, body).await?;
    let code = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if !code.is_success() {
        bail!("{path}: {code}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
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
        What::Get | What::List | What::Page => (Method::GET, path, json, Bytes::new()),
        What::MergePatch => {
            (Method::PATCH, path, "application/merge-patch+json", format!(r#"{{"data":{{"n":"{n}"}}}}"#).into())
        }
        What::Delete => (Method::DELETE, path, json, Bytes::new()),
    }
}
