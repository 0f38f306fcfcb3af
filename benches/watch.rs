//! How long it takes from the moment a create is sent until every watcher has the event.

use crate::load::answer;
use crate::target::{Lines, Target};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args, Clone)]
pub(crate) struct Watch {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 100)]
    watchers: usize,
    #[arg(long, default_value_t = 1000)]
    creates: usize,
    /// Creates in a second; 0 is as many as there can be
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Connections that create
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

const NAMESPACE: &str = "/api/v1/namespaces/default/configmaps";

impl Watch {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let run = std::process::id();
        let tls = self.target.connector()?;
        let mut connection = self.target.connect(&tls).await?;
        let listed = connection.json(Method::GET, &format!("{NAMESPACE}?limit=1"), &Value::Null).await?;
        let revision = listed.pointer("/metadata/resourceVersion").and_then(Value::as_str).context("no revision")?;
        let path = format!("{NAMESPACE}?watch=true&resourceVersion={revision}&timeoutSeconds=600");
        let begun = Instant::now();
        let mut watchers = Vec::new();
        for _ in 0..self.watchers {
            let mut connection = self.target.connect(&tls).await?;
            let answer = connection.send(Method::GET, &path, "", Bytes::new()).await?;
            if !answer.status().is_success() {
                bail!("{path}: {}", answer.status());
            }
            let creates = self.creates;
            watchers.push(tokio::spawn(async move {
                let _open = connection;
                see(Lines::new(answer), begun, run, creates).await
            }));
        }
        let first = begun.elapsed();
        let creating: Vec<_> = self.create(run, begun).await?;
        for worker in creating {
            worker.await??;
        }
        let created = begun.elapsed() - first;
        let (mut took, mut last) = (Vec::new(), Duration::ZERO);
        for watcher in watchers {
            let (each, end) = tokio::time::timeout(Duration::from_secs(60), watcher).await???;
            took.extend(each);
            last = last.max(end);
        }
        for n in 0..self.creates {
            let path = format!("{NAMESPACE}/watched-{run}-{n}");
            answer(&mut connection, Method::DELETE, &path, "", Bytes::new()).await?;
        }
        let mut result = crate::percentiles(took);
        result["created_s"] = json!(created.as_secs_f64());
        result["delivered_s"] = json!((last - first).as_secs_f64());
        Ok(result)
    }

    /// Creates on their way, each at its time.
    async fn create(
        &self,
        run: u32,
        begun: Instant,
    ) -> anyhow::Result<Vec<tokio::task::JoinHandle<anyhow::Result<()>>>> {
        let tls = self.target.connector()?;
        let next = Arc::new(AtomicUsize::new(0));
        let start = tokio::time::Instant::now();
        let mut workers = Vec::new();
        for _ in 0..self.connections {
            let mut connection = self.target.connect(&tls).await?;
            let (next, this) = (Arc::clone(&next), self.clone());
            workers.push(tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= this.creates {
                        return Ok(());
                    }
                    if let Some(pause) = Duration::from_secs(1).checked_div(this.rate) {
                        tokio::time::sleep_until(start + pause * u32::try_from(n)?).await;
                    }
                    let sent = begun.elapsed().as_nanos();
                    let value = "configuration ".repeat(18);
                    let body = format!(
                        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"watched-{run}-{n}"}},"data":{{"key":"{value}","sent":"{sent}"}}}}"#
                    );
                    answer(&mut connection, Method::POST, NAMESPACE, "application/json", body.into()).await?;
                }
            }));
        }
        Ok(workers)
    }
}

/// Milliseconds from sending to seeing, for each, and when the last one was seen.
async fn see(mut lines: Lines, begun: Instant, run: u32, creates: usize) -> anyhow::Result<(Vec<f64>, Duration)> {
    let ours = format!("\"name\":\"watched-{run}-");
    let mut took = Vec::with_capacity(creates);
    while took.len() < creates {
        let line = lines.text().await?.context("a watch ended early")?;
        let now = begun.elapsed();
        if !line.contains(&ours) {
            continue;
        }
        let sent = line.split_once("\"sent\":\"").and_then(|(_, rest)| rest.split('"').next());
        let sent: u64 = sent.context("an event without its time")?.parse()?;
        took.push((now - Duration::from_nanos(sent)).as_secs_f64() * 1e3);
    }
    Ok((took, begun.elapsed()))
}
