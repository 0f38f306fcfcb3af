//! The status of quotas: what is used, written soon after it changes.
//!
//! A watch of everything, of which only changes in namespaces that have a quota count: an idle server sleeps.

use super::{PREFIX, hard, used};
use crate::ApiServer;
use crate::object::Template;
use mini_api::{Meta, Value};
use mini_store::{Expect, Op};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const EVERYTHING: &str = "/registry/";
/// What happens within this time is counted once.
const GATHER: Duration = Duration::from_millis(50);
/// Pods whose grace is over leave the count without a change.
const AGAIN: Duration = Duration::from_secs(300);

/// Keeps the statuses until `cancel`.
pub(crate) async fn run(server: Arc<ApiServer>, cancel: CancellationToken) {
    while cancel.run_until_cancelled(follow(&server)).await.is_some() {
        // The watch fell behind; what it missed is found by starting over.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// `pods/a/b` below the prefix: the namespace of a key.
fn namespace(key: &str) -> Option<&str> {
    let mut parts = key.strip_prefix(EVERYTHING)?.split('/').skip(1);
    let namespace = parts.next()?;
    parts.next().map(|_| namespace)
}

async fn follow(server: &ApiServer) {
    let snapshot = server.store.snapshot();
    let mut changed: BTreeSet<String> =
        snapshot.range(PREFIX, None).filter_map(|entry| namespace(&entry.key).map(str::to_owned)).collect();
    let Ok(mut watcher) = server.store.watch(EVERYTHING, snapshot.revision()) else { return };
    drop(snapshot);
    let mut due = Instant::now();
    loop {
        tokio::select! {
            event = watcher.next() => match event {
                Some(event) => {
                    let Some(namespace) = namespace(&event.entry.key) else { continue };
                    let quotas = format!("{PREFIX}{namespace}/");
                    if !changed.contains(namespace) && server.store.snapshot().range(&quotas, None).next().is_some() {
                        if changed.is_empty() {
                            due = Instant::now() + GATHER;
                        }
                        changed.insert(namespace.to_owned());
                    }
                }
                None => return,
            },
            () = tokio::time::sleep_until(due), if !changed.is_empty() => {
                for namespace in std::mem::take(&mut changed) {
                    write(server, &namespace).await;
                }
            }
            () = tokio::time::sleep(AGAIN), if changed.is_empty() => {
                let snapshot = server.store.snapshot();
                changed = snapshot.range(PREFIX, None).filter_map(|entry| namespace(&entry.key).map(str::to_owned)).collect();
                due = Instant::now();
            }
        }
    }
}

async fn write(server: &ApiServer, namespace: &str) {
    let snapshot = server.store.snapshot();
    let prefix = format!("{PREFIX}{namespace}/");
    for entry in snapshot.range(&prefix, None) {
        let Ok(mut quota) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        let text = |amounts: super::Amounts| -> Value {
            amounts.into_iter().map(|(name, amount)| (name, Value::from(amount.to_string()))).collect()
        };
        let (hard, used) = (text(hard(&quota)), text(used(server, &snapshot, &quota)));
        let status = if hard.as_object().is_none_or(serde_json::Map::is_empty) {
            json!({})
        } else {
            json!({"hard": hard, "used": used})
        };
        if quota.get("status") == Some(&status) || quota.is_deleting() {
            continue;
        }
        quota["status"] = status;
        let (key, expect) = (entry.key.clone(), Expect::Revision(entry.revision));
        let op = Op::Put { key, expect, finish: Template::new(&quota).finish() };
        // Somebody else changed it: that is an event, and it is looked at again.
        if let Err(error) = server.store.write(vec![op]).await {
            tracing::debug!(%error, "the status of a quota is written later");
        }
    }
}
