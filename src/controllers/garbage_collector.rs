//! The garbage collector: objects whose owners are all gone go too, in the background, the foreground, or not at all.
//!
//! It follows the metadata of every served kind and keeps only who owns whom. Invariant: nothing is deleted on
//! hearsay: both the absence of an owner and the state of the object are asked of the server first.

mod act;
mod graph;
mod sink;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use mini_client::{CancellationToken, Queue, Recorder, Scope};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::served::{self, Served};
use graph::Graph;
use sink::{Definitions, RowSink, Stub};

const WORKERS: usize = 16;
/// How often the served kinds are asked for again, whatever the definitions of custom kinds do.
const DISCOVERY: Duration = Duration::from_secs(300);
/// Definitions come in numbers: so long they are waited for before the kinds are asked for again.
const GATHER: Duration = Duration::from_millis(200);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// A kind that cannot be listed for this long is not waited for any more: owners are looked up live anyway.
const PATIENCE: Duration = Duration::from_secs(30);
/// Kinds that never own and are never owned, and come in numbers.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

type Uid = Arc<str>;

pub(crate) struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    rows: Mutex<Vec<Arc<Served>>>,
    queue: Queue<Uid>,
    recorder: Recorder,
}

/// Runs until `cancel`.
pub(crate) async fn run(client: Client, recorder: Recorder, cancel: CancellationToken) {
    let (graph, rows) = (Mutex::default(), Mutex::default());
    let collector = Arc::new(Collector { client, graph, rows, queue: Queue::new(), recorder });
    tokio::select! {
        () = cancel.cancelled() => {}
        () = collector.clone().discover(cancel.clone()) => {}
        () = collector.work() => {}
    }
}

impl Collector {
    /// Follows all served kinds, later those that come, and no longer those that go.
    async fn discover(self: Arc<Self>, cancel: CancellationToken) {
        let mut followed: HashMap<String, CancellationToken> = HashMap::new();
        let changed = Arc::new(Notify::new());
        let mut watching = false;
        let mut delay = Duration::from_millis(50);
        loop {
            let complete = match served::discover(&self.client).await {
                Ok((served, failures)) => {
                    let mut served: HashMap<String, Served> = served
                        .into_iter()
                        .filter(collectable)
                        .map(|row| (<kube::core::DynamicObject as kube::Resource>::url_path(&row.resource, None), row))
                        .collect();
                    if failures.is_empty() {
                        followed.retain(|url, following| {
                            let stays = served.contains_key(url);
                            if !stays {
                                following.cancel();
                                self.forget(url);
                            }
                            stays
                        });
                    }
                    served.retain(|url, _| !followed.contains_key(url));
                    for (url, row) in served {
                        let following = cancel.child_token();
                        followed.insert(url.clone(), following.clone());
                        self.follow(row, url, &following);
                    }
                    if !watching && followed.contains_key(DEFINITIONS) {
                        watching = true;
                        let sink = Arc::new(Definitions(changed.clone()));
                        let (client, url) = (self.client.clone(), DEFINITIONS.to_owned());
                        let scope = Scope::default();
                        tokio::spawn(mini_client::follow::<Stub, _>(client, url, scope, sink, cancel.clone()));
                    }
                    failures.is_empty()
                }
                Err(error) => {
                    tracing::debug!(%error, "discovery failed");
                    false
                }
            };
            if complete {
                // A definition that comes or goes is followed at once.
                let _ = tokio::time::timeout(DISCOVERY, changed.notified()).await;
                sleep(GATHER).await;
            } else {
                sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(30));
            }
        }
    }

    fn follow(self: &Arc<Self>, row: Served, url: String, cancel: &CancellationToken) {
        let row = Arc::new(row);
        self.rows.lock().push(row.clone());
        self.graph.lock().expect_row(url.clone());
        let (impatient, awaited) = (self.clone(), url.clone());
        tokio::spawn(cancel.clone().run_until_cancelled_owned(async move {
            sleep(PATIENCE).await;
            let suspects = impatient.graph.lock().listed(&awaited);
            suspects.into_iter().for_each(|uid| impatient.queue.add(uid));
        }));
        let sink = Arc::new(RowSink { collector: self.clone(), row, url: url.clone() });
        let following =
            mini_client::follow::<Stub, _>(self.client.clone(), url, Scope::default(), sink, cancel.clone());
        tokio::spawn(following);
    }

    /// A kind is served no more: what is known of its objects is void.
    fn forget(&self, url: &str) {
        let mut rows = self.rows.lock();
        let of =
            |row: &Arc<Served>| <kube::core::DynamicObject as kube::Resource>::url_path(&row.resource, None) == url;
        let Some(row) = rows.iter().position(of).map(|at| rows.remove(at)) else { return };
        drop(rows);
        let mut graph = self.graph.lock();
        let mut suspects = graph.listed(url);
        for gone in graph.missing(&row, &HashSet::new()) {
            suspects.extend(graph.remove(&gone));
        }
        drop(graph);
        suspects.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn work(self: &Arc<Self>) {
        let workers = Arc::new(Semaphore::new(WORKERS));
        let mut tasks = JoinSet::new();
        while let Ok(permit) = workers.clone().acquire_owned().await {
            let Some(uid) = self.queue.next().await else { return };
            while tasks.try_join_next().is_some() {}
            let collector = self.clone();
            tasks.spawn(async move {
                match AssertUnwindSafe(collector.process(&uid)).catch_unwind().await {
                    Ok(Ok(())) => collector.queue.forget(&uid),
                    Ok(Err(error)) => {
                        tracing::debug!(%uid, %error, "collection to be tried again");
                        collector.queue.retry(uid.clone());
                    }
                    Err(_) => {
                        tracing::error!("the garbage collector panicked; going on without that object");
                        collector.queue.retry(uid.clone());
                    }
                }
                collector.queue.done(&uid);
                drop(permit);
            });
        }
    }
}

fn collectable(row: &Served) -> bool {
    ["list", "watch", "delete"].iter().all(|verb| row.can(verb))
        && !IGNORED.contains(&(row.resource.group.as_str(), row.resource.plural.as_str()))
}

#[cfg(test)]
mod tests;
