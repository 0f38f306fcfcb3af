//! CustomResourceDefinitions at work: their rows in the live table, their status, and the end of their objects.
//!
//! One task follows them by the store's watch; nothing is polled. Invariant: a kind is served before its definition says
//! that it is established, and its objects are gone before its definition is.

use crate::options::DeleteOptions;
use crate::verbs::{delete, update};
use crate::{ApiServer, Call, bootstrap, call, object, system_objects};
use mini_api::{Meta, Status, Value};
use mini_resources::Resource;
use mini_resources::custom::{self, names};
use mini_store::{Entry, EventKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";
/// Keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const PREFIX: &str = "/registry/customresourcedefinitions.apiextensions.k8s.io/";

/// What is known of the definitions, by their keys.
#[derive(Default)]
pub(crate) struct Definitions(tokio::sync::Mutex<BTreeMap<Arc<str>, Known>>);

struct Known {
    /// One of the same name made after it is another one.
    uid: String,
    revision: u64,
    group: String,
    /// No more than the names that are accepted.
    accepted: Value,
    /// False while a name that it asks for is another's.
    settled: bool,
    rows: Vec<Arc<Resource>>,
    /// Its objects are being deleted.
    cleaning: bool,
}

/// Keeps the table and the statuses in step with the definitions, until `cancel`.
pub(crate) async fn run(server: Arc<ApiServer>, cancel: CancellationToken) {
    while cancel.run_until_cancelled(follow(&server)).await.is_some() {
        // The watch fell behind; what it missed is found by starting over.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn follow(server: &Arc<ApiServer>) {
    let revision = server.store.revision();
    let Ok(mut watcher) = server.store.watch(PREFIX, revision) else { return };
    sync(server).await;
    while watcher.next().await.is_some() {
        sync(server).await;
    }
}

/// Looks at what has changed since the last time.
pub(crate) async fn sync(server: &Arc<ApiServer>) {
    let mut known = server.definitions.0.lock().await;
    let snapshot = server.store.snapshot();
    let entries: Vec<Entry> = snapshot.range(PREFIX, None).collect();
    let there: BTreeSet<&Arc<str>> = entries.iter().map(|e| &e.key).collect();
    let before = known.len();
    known.retain(|key, _| there.contains(key));
    let mut changed = known.len() != before;
    let mut fresh: Vec<(Entry, Value)> = Vec::new();
    for entry in entries {
        if known.get(&entry.key).is_some_and(|k| k.settled && k.revision == entry.revision) {
            continue;
        }
        let Ok(definition) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        if known.get(&entry.key).is_some_and(|k| k.uid != definition.uid()) {
            known.remove(&entry.key);
            changed = true;
        }
        let row = known.entry(entry.key.clone()).or_insert_with(|| Known {
            uid: definition.uid().to_owned(),
            revision: 0,
            group: definition.text(&["spec", "group"]).to_owned(),
            accepted: Value::Null,
            settled: false,
            rows: Vec::new(),
            cleaning: false,
        });
        row.revision = entry.revision;
        row.accepted = accepted(&definition);
        fresh.push((entry, definition));
    }
    let mut settled = Vec::new();
    for (entry, stored) in fresh {
        let mut definition = stored.clone();
        if !definition.is_deleting() {
            let group = definition.text(&["spec", "group"]).to_owned();
            let mut taken = names::Taken::default();
            server.registry.builtin(&group).for_each(|row| taken.add_row(row));
            known.values().filter(|k| k.group == group).for_each(|k| taken.add(&k.accepted));
            names::settle(&mut definition, &taken, &mini_api::time::now());
        }
        let Some(row) = known.get_mut(&entry.key) else { continue };
        row.accepted = accepted(&definition);
        row.settled = definition.is_deleting() || names::is_true(&definition, "NamesAccepted");
        changed |= refresh(row, &definition);
        if definition.is_deleting() && has_finalizer(&definition) && !row.cleaning {
            row.cleaning = true;
            tokio::spawn(clean(server.clone(), definition.clone()));
        }
        if definition != stored {
            settled.push(definition);
        }
    }
    if changed {
        let rows: Vec<_> = known.values().flat_map(|k| k.rows.clone()).collect();
        server.registry.publish(rows);
        server.documents.clear();
    }
    drop(known);
    if changed && server.booted.load(Ordering::Acquire) {
        // Groups that come or go are announced.
        if let Err(error) = system_objects::keep(server).await {
            tracing::warn!(%error, "cannot announce the groups of custom kinds");
        }
    }
    for definition in settled {
        if let Err(error) = write_status(server, &definition).await {
            tracing::debug!(%error, name = definition.name(), "the status of a definition is to be written again");
        }
    }
}

fn accepted(definition: &Value) -> Value {
    let names = definition.get("status").and_then(|s| s.get("acceptedNames")).cloned().unwrap_or_default();
    serde_json::json!({"status": {"acceptedNames": names}})
}

fn has_finalizer(definition: &Value) -> bool {
    definition
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// Makes the rows anew if the definition says something else than before; answers whether it does.
fn refresh(known: &mut Known, definition: &Value) -> bool {
    let served = names::is_true(definition, "Established") || names::is_true(definition, "NamesAccepted");
    if !served {
        return !std::mem::take(&mut known.rows).is_empty();
    }
    let identity = custom::identity(definition);
    let same = known
        .rows
        .first()
        .and_then(|row| row.custom.as_ref())
        .is_some_and(|kind| kind.identity == identity && kind.terminating == definition.is_deleting());
    if same {
        return false;
    }
    known.rows = custom::rows(definition).into_iter().map(Arc::new).collect();
    true
}

/// Writes accepted names and conditions; whatever else changed meanwhile stays.
async fn write_status(server: &Arc<ApiServer>, definition: &Value) -> Result<(), Status> {
    let status = definition.get("status").cloned().unwrap_or_default();
    change(server, definition, "status", move |new| {
        for field in ["acceptedNames", "conditions"] {
            new["status"][field] = status.get(field).cloned().unwrap_or_default();
        }
    })
    .await
}

/// Changes the definition, unless there is another one of its name by now.
async fn change(
    server: &Arc<ApiServer>,
    definition: &Value,
    subresource: &str,
    edit: impl Fn(&mut Value),
) -> Result<(), Status> {
    let call = bootstrap::internal_call(server, GROUP, PLURAL, "", definition.name())?;
    let change = |old: &Value| {
        if old.uid() != definition.uid() {
            return Err(call.not_found());
        }
        let mut new = old.clone();
        edit(&mut new);
        Ok((new, Vec::new()))
    };
    update::change_object(&call, update::Write::new(subresource, false), change).await.map(drop)
}

/// Deletes all objects of a definition that is going, waits until they are gone, and lets it go.
async fn clean(server: Arc<ApiServer>, definition: Value) {
    let cancel = server.draining.clone();
    let work = async {
        while let Err(error) = clean_once(&server, &definition).await {
            if error.code == 404 {
                return;
            }
            tracing::warn!(%error, name = definition.name(), "cannot delete the objects of a custom kind yet");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    cancel.run_until_cancelled(work).await;
}

async fn clean_once(server: &Arc<ApiServer>, definition: &Value) -> Result<(), Status> {
    let condition = |holds: bool, reason: &'static str, message: &'static str| {
        change(server, definition, "status", move |new| {
            names::set_condition(new, "Terminating", holds, reason, message, &mini_api::time::now());
        })
    };
    if names::is_true(definition, "Established") {
        condition(true, "InstanceDeletionInProgress", "CustomResource deletion is in progress").await?;
        delete_all(server, definition).await?;
        condition(false, "InstanceDeletionCompleted", "removed all instances").await?;
    } else {
        condition(false, "NeverEstablished", "resource was never established").await?;
    }
    change(server, definition, "", |new| {
        if let Some(Value::Array(finalizers)) = new.pointer_mut("/metadata/finalizers") {
            finalizers.retain(|f| f != FINALIZER);
        }
    })
    .await
}

async fn delete_all(server: &Arc<ApiServer>, definition: &Value) -> Result<(), Status> {
    let row = &Arc::new(custom::stored_row(definition));
    let prefix = call::list_prefix(row, "");
    let key = format!("{PREFIX}{}", definition.name());
    loop {
        let snapshot = server.store.snapshot();
        // Once it is gone, what is there belongs to the next one of its name.
        let current = snapshot.get(&key).and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
        if current.is_none_or(|current| current.uid() != definition.uid()) {
            return Err(Status::not_found(GROUP, PLURAL, definition.name()));
        }
        let watcher = server.store.watch(&prefix, snapshot.revision());
        let mut watcher = watcher.map_err(|error| crate::verbs::create::store_failed(&error))?;
        let mut left = 0;
        for entry in snapshot.range(&prefix, None) {
            let object = object::read(row, &entry)?;
            let (call, options) = (instance_call(server, row, &object), DeleteOptions::default());
            match delete::object(&call, object.name(), &options).await {
                Ok(deleted) if deleted.gone => {}
                Ok(_) => left += 1,
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        if left == 0 && server.store.snapshot().range(&prefix, None).next().is_none() {
            return Ok(());
        }
        // Somebody's finalizers hold the rest: look again when something of it is gone.
        if left > 0 {
            while watcher.next().await.is_some_and(|event| event.kind != EventKind::Delete) {}
        }
    }
}

/// A call of the server's own about an object.
fn instance_call(server: &Arc<ApiServer>, row: &Arc<Resource>, object: &Value) -> Call {
    let mut call = Call::internal(server, row.clone());
    object.namespace().clone_into(&mut call.info.namespace);
    object.name().clone_into(&mut call.info.name);
    call
}
