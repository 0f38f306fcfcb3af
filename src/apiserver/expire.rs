//! Events are kept for an hour after their last change.
//!
//! A queue of what is due, fed by a watch: nothing is polled, and an idle server sleeps.

use crate::ApiServer;
use bytes::Bytes;
use mini_api::{Meta, Value};
use mini_store::{EventKind, Expect, Op};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "/registry/events/";
const TTL: Duration = Duration::from_secs(3600);
/// What falls due within this time goes in one transaction.
const BATCH: Duration = Duration::from_secs(60);

struct Due {
    at: Instant,
    key: Arc<str>,
    revision: u64,
}

/// Deletes events as they fall due, until `cancel`.
pub(crate) async fn run(server: Arc<ApiServer>, cancel: CancellationToken) {
    while cancel.run_until_cancelled(follow(&server)).await.is_some() {
        // The watch fell behind; what it missed is found by starting over.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow(server: &ApiServer) {
    let snapshot = server.store.snapshot();
    let mut queue: VecDeque<Due> = snapshot
        .range(PREFIX, None)
        .map(|entry| Due { at: Instant::now() + left(&entry.bytes), key: entry.key.clone(), revision: entry.revision })
        .collect();
    queue.make_contiguous().sort_by_key(|due| due.at);
    let Ok(mut watcher) = server.store.watch(PREFIX, snapshot.revision()) else { return };
    drop(snapshot);
    loop {
        let next = queue.front().map_or_else(|| Instant::now() + TTL, |due| due.at + BATCH);
        tokio::select! {
            event = watcher.next() => match event {
                Some(event) if event.kind == EventKind::Put => {
                    let entry = &event.entry;
                    queue.push_back(Due { at: Instant::now() + TTL, key: entry.key.clone(), revision: entry.revision });
                }
                Some(_) => {}
                None => return,
            },
            () = tokio::time::sleep_until(next) => delete_due(server, &mut queue).await,
        }
    }
}

/// One transaction for all; one by one if one of them has changed meanwhile.
async fn delete_due(server: &ApiServer, queue: &mut VecDeque<Due>) {
    let now = Instant::now();
    let count = queue.iter().take_while(|due| due.at <= now).count();
    let snapshot = server.store.snapshot();
    let ops: Vec<(Arc<str>, u64, Bytes)> = queue
        .drain(..count)
        .filter_map(|due| {
            let entry = snapshot.get(&due.key)?;
            (entry.revision == due.revision).then_some((due.key, due.revision, entry.bytes))
        })
        .collect();
    if ops.is_empty() {
        return;
    }
    let op = |(key, revision, bytes): (Arc<str>, u64, Bytes)| Op::Delete {
        key,
        expect: Expect::Revision(revision),
        finish: Box::new(move |_| bytes),
    };
    if server.store.write(ops.iter().cloned().map(op).collect()).await.is_ok() {
        return;
    }
    for one in ops {
        let _ = server.store.write(vec![op(one)]).await;
    }
}

/// How long an event that was there at the start still has.
fn left(bytes: &[u8]) -> Duration {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let last = [&["lastTimestamp"][..], &["eventTime"], &["metadata", "creationTimestamp"]]
        .iter()
        .find_map(|path| mini_api::time::parse(value.text(path)).ok());
    let age = last.map_or(0, |last| jiff::Timestamp::now().as_second() - last.as_second());
    TTL.saturating_sub(Duration::from_secs(u64::try_from(age).unwrap_or(0)))
}
