//! Writers and watchers that live through kills of the server, and the audit afterwards.
//!
//! A writer owns its ConfigMaps, counts up in them and notes the last count that was acknowledged. After every kill and at
//! the end: a value is never below the last acknowledged one, and never above the last attempted one. A watcher resumes from the
//! last revision it saw, lists anew only when it is told 410, and must see revisions rise and each counter without a step
//! back; its picture at the end must be the list's.

use crate::target::{Lines, Target};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(clap::Args, Clone)]
pub(crate) struct Soak {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 8)]
    writers: usize,
    #[arg(long, default_value_t = 4)]
    watchers: usize,
    /// Until this file is there
    #[arg(long)]
    until: PathBuf,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[derive(Default)]
struct Totals {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    events: AtomicU64,
    resumed: AtomicU64,
    relisted: AtomicU64,
    stop: AtomicBool,
}

impl Soak {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let totals = Arc::new(Totals::default());
        let run = std::process::id();
        let writers: Vec<_> =
            (0..self.writers).map(|n| tokio::spawn(write(self.clone(), run, n, totals.clone()))).collect();
        let watchers: Vec<_> =
            (0..self.watchers).map(|_| tokio::spawn(watch(self.clone(), run, totals.clone()))).collect();
        while !self.until.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Found out below why.
            if writers.iter().any(tokio::task::JoinHandle::is_finished)
                || watchers.iter().any(tokio::task::JoinHandle::is_finished)
            {
                break;
            }
        }
        totals.stop.store(true, Ordering::SeqCst);
        let mut last = BTreeMap::new();
        for writer in writers {
            last.extend(writer.await??);
        }
        // The server lives again: what it has now is what counts.
        let listed = list(&self, run).await?.1;
        for (name, (acknowledged, attempted)) in &last {
            let found = listed.get(name).copied().unwrap_or_default();
            if found < *acknowledged || found > *attempted {
                bail!("{name} is {found}, but {acknowledged} was acknowledged and {attempted} the last attempted");
            }
        }
        for watcher in watchers {
            let seen = watcher.await??;
            if seen != listed {
                bail!("a watcher ended with another picture than the list: {seen:?} against {listed:?}");
            }
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Ok(json!({
            "acknowledged_writes": count(&totals.acknowledged), "failed_attempts": count(&totals.failed),
            "watch_events": count(&totals.events), "watches_resumed": count(&totals.resumed),
            "watches_relisted": count(&totals.relisted), "lost": 0,
        }))
    }
}

type Counts = BTreeMap<String, u64>;

/// Counts up in one ConfigMap, over whatever happens. Returns the last acknowledged and the last attempted count.
async fn write(soak: Soak, run: u32, n: usize, totals: Arc<Totals>) -> anyhow::Result<BTreeMap<String, (u64, u64)>> {
    let tls = soak.target.connector()?;
    let name = format!("soak-{run}-{n}");
    let (mut acknowledged, mut attempted, mut exists) = (0, 0, false);
    let mut connection = None;
    while !totals.stop.load(Ordering::SeqCst) {
        let open = match connection.take() {
            Some(open) => Ok(open),
            None => soak.target.connect(&tls).await,
        };
        let Ok(mut open) = open else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        attempted += 1;
        let (method, path, kind, body) = if exists {
            let patch = json!({"data": {"n": attempted.to_string()}});
            (Method::PATCH, format!("{MAPS}/{name}"), "application/merge-patch+json", patch)
        } else {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "labels": {"soak": run.to_string()}}, "data": {"n": attempted.to_string()},
            });
            (Method::POST, MAPS.to_owned(), "application/json", map)
        };
        let Ok(answer) = open.send(method, &path, kind, serde_json::to_vec(&body)?.into()).await else {
            totals.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let code = answer.status();
        if code.is_success() {
            // Acknowledged from the status line on, even if the body is cut off.
            acknowledged = attempted;
            exists = true;
            totals.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else if code.as_u16() == 409 {
            exists = true;
        } else if code.as_u16() == 404 && exists && acknowledged > 0 {
            bail!("{name} is gone, but {acknowledged} was acknowledged");
        } else if code.as_u16() == 404 {
            exists = false;
        } else {
            totals.failed.fetch_add(1, Ordering::Relaxed);
        }
        if answer.into_body().collect().await.is_ok() {
            connection = Some(open);
        }
    }
    Ok(BTreeMap::from([(name, (acknowledged, attempted))]))
}

async fn list(soak: &Soak, run: u32) -> anyhow::Result<(String, Counts)> {
    let tls = soak.target.connector()?;
    let begun = Instant::now();
    loop {
        let listed = async {
            let mut connection = soak.target.connect(&tls).await?;
            connection.json(Method::GET, &format!("{MAPS}?labelSelector=soak%3D{run}"), &Value::Null).await
        };
        match listed.await {
            Ok(list) => {
                let revision = list["metadata"]["resourceVersion"].as_str().context("no revision")?.to_owned();
                let items = list["items"].as_array().context("no items")?;
                return Ok((revision, items.iter().filter_map(count_of).collect()));
            }
            Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn count_of(map: &Value) -> Option<(String, u64)> {
    Some((map["metadata"]["name"].as_str()?.to_owned(), map["data"]["n"].as_str()?.parse().ok()?))
}

async fn watch(soak: Soak, run: u32, totals: Arc<Totals>) -> anyhow::Result<Counts> {
    let tls = soak.target.connector()?;
    let (mut revision, mut seen) = list(&soak, run).await?;
    let mut quiet_since = None;
    loop {
        let stopping = totals.stop.load(Ordering::SeqCst);
        // After the last write a watcher gets two quiet seconds to catch up.
        if stopping && quiet_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(2) {
            return Ok(seen);
        }
        let path =
            format!("{MAPS}?watch=true&allowWatchBookmarks=true&labelSelector=soak%3D{run}&resourceVersion={revision}");
        let opened = async {
            let mut connection = soak.target.connect(&tls).await?;
            let answer = connection.send(Method::GET, &path, "application/json", Bytes::new()).await?;
            anyhow::Ok((connection, answer))
        };
        let Ok((_connection, answer)) = opened.await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let code = answer.status().as_u16();
        let mut gone = code == 410;
        if code != 200 && !gone {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        totals.resumed.fetch_add(1, Ordering::Relaxed);
        let mut lines = Lines::new(answer);
        while !gone {
            let line = tokio::time::timeout(Duration::from_secs(2), lines.next()).await;
            match line {
                Err(_) if totals.stop.load(Ordering::SeqCst) => return Ok(seen),
                Err(_) => {}
                Ok(Ok(Some(event))) if event["type"] == "ERROR" => {
                    gone = event["object"]["code"] == 410;
                    if !gone {
                        bail!("the watch failed: {event}");
                    }
                }
                Ok(Ok(Some(event))) => {
                    apply(&event, &mut revision, &mut seen)?;
                    totals.events.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Ok(None) | Err(_)) => break,
            }
        }
        if gone {
            totals.relisted.fetch_add(1, Ordering::Relaxed);
            let before = seen;
            (revision, seen) = list(&soak, run).await?;
            for (name, count) in before {
                if seen.get(&name).copied().unwrap_or_default() < count {
                    bail!("{name} went back from {count} to {:?} in a list", seen.get(&name));
                }
            }
        }
    }
}

fn apply(event: &Value, revision: &mut String, seen: &mut Counts) -> anyhow::Result<()> {
    let new = event["object"]["metadata"]["resourceVersion"].as_str().context("an event without a revision")?;
    let bookmark = event["type"] == "BOOKMARK";
    let (old, next) = (revision.parse::<u64>()?, new.parse::<u64>()?);
    if next < old || (next == old && !bookmark) {
        bail!("after revision {old} came {next}");
    }
    new.clone_into(revision);
    if bookmark {
        return Ok(());
    }
    let (name, count) = count_of(&event["object"]).context("a ConfigMap of another shape")?;
    if let Some(before) = seen.get(&name)
        && count <= *before
    {
        bail!("{name} went back from {before} to {count}");
    }
    seen.insert(name, count);
    Ok(())
}
