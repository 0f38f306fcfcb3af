//! ResourceQuota: what the objects of a namespace may be and ask for, together.
//!
//! Nothing is remembered: what is used is counted from the store's snapshot. Whoever adds to a namespace that has a quota
//! takes that namespace's turn first and keeps it until the write is done, so that two cannot both take the last place.

mod status;
mod usage;

pub(crate) use status::run;

use crate::call::{list_prefix, object_key};
use crate::{ApiServer, Call};
use mini_api::{Meta, Quantity, Status, Value};
use mini_resources::Resource;
use mini_store::Snapshot;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

const PREFIX: &str = "/registry/resourcequotas/";
/// Namespaces that share a turn are few.
const TURNS: usize = 64;

/// Amounts by the names that quotas have for them.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// Whose turn it is, by namespace.
pub(crate) struct Turns([Arc<Mutex<()>>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl Turns {
    async fn take(&self, namespace: &str) -> Option<OwnedMutexGuard<()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        Some(self.0.get(index)?.clone().lock_owned().await)
    }
}

/// Whether there is room for what `new` adds to `old`. The answer holds until what is answered is dropped.
///
/// # Errors
/// 403 if there is none.
pub(crate) async fn admit(
    call: &Call,
    new: &Value,
    old: Option<&Value>,
    subresource: &str,
) -> Result<Option<OwnedMutexGuard<()>>, Status> {
    let (server, resource, namespace) = (&call.server, &*call.resource, call.info.namespace.as_str());
    let changes = old.is_none() || usage::changes(resource, subresource);
    let prefix = format!("{PREFIX}{namespace}/");
    if !resource.namespaced || !changes || server.store.snapshot().range(&prefix, None).next().is_none() {
        return Ok(None);
    }
    let turn = server.turns.take(namespace).await;
    let snapshot = server.store.snapshot();
    // An object that is there already is refused for that, not for what it would take.
    let key = object_key(resource, namespace, new.name());
    if old.is_none() && !new.name().is_empty() && snapshot.get(&key).is_some() {
        return Ok(turn);
    }
    for entry in snapshot.range(&prefix, None) {
        let Ok(quota) = serde_json::from_slice(&entry.bytes) else { continue };
        check(server, &snapshot, resource, &quota, new, old)?;
    }
    Ok(turn)
}

fn check(
    server: &ApiServer,
    snapshot: &Snapshot,
    resource: &Resource,
    quota: &Value,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if !usage::in_scope(quota, resource, object) {
        return Ok(());
    }
    let refused = |why: &str| Err(Status::forbidden(&resource.group, &resource.plural, object.name(), why));
    let hard = hard(quota);
    let missing = usage::unsaid(resource, object, &hard);
    if !missing.is_empty() {
        return refused(&format!("failed quota: {}: must specify {missing}", quota.name()));
    }
    let asked = asked(resource, quota, &hard, object, old);
    if asked.is_empty() {
        return Ok(());
    }
    let used = used(server, snapshot, quota);
    let over: Vec<&String> = asked
        .iter()
        .filter(|(name, more)| {
            let total = used.get(*name).filter(|used| !used.is_zero()).map_or(**more, |used| used.plus(more));
            hard.get(*name).is_some_and(|most| total > *most)
        })
        .map(|(name, _)| name)
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let list = |amounts: &Amounts| {
        let shown = over
            .iter()
            .map(|name| format!("{name}={}", amounts.get(*name).map_or_else(|| "0".to_owned(), ToString::to_string)));
        shown.collect::<Vec<_>>().join(",")
    };
    refused(&format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name(),
        list(&asked),
        list(&used),
        list(&hard)
    ))
}

/// What `object` adds to what a quota counts, by the names that it limits.
fn asked(resource: &Resource, quota: &Value, hard: &Amounts, object: &Value, old: Option<&Value>) -> Amounts {
    // What was not in its scope was not counted.
    let before = old.filter(|old| usage::in_scope(quota, resource, old));
    let before = before.map(|old| usage::of(resource, old)).unwrap_or_default();
    let mut asked = Amounts::new();
    for (name, amount) in usage::of(resource, object).into_iter().filter(|(name, _)| hard.contains_key(name)) {
        let more = before.get(&name).map_or(amount, |before| amount.minus(before));
        if !more.is_zero() && !more.is_negative() {
            asked.insert(name, more);
        }
    }
    asked
}

fn hard(quota: &Value) -> Amounts {
    usage::amounts(quota.pointer("/spec/hard"))
}

/// What is used of everything that a quota limits.
fn used(server: &ApiServer, snapshot: &Snapshot, quota: &Value) -> Amounts {
    let namespace = quota.namespace();
    let mut used: Amounts = hard(quota).into_keys().map(|name| (name, Quantity::ZERO)).collect();
    let names: Vec<String> = used.keys().cloned().collect();
    let mut seen: Vec<(String, String)> = Vec::new();
    for name in &names {
        let Some((plural, group)) = usage::counted(name) else { continue };
        if seen.contains(&(plural.clone(), group.clone())) {
            continue;
        }
        let registry = server.registry.current();
        let found = registry.iter().find(|r| r.plural == plural && r.group == group && r.namespaced && r.stored());
        let Some(resource) = found else { continue };
        let prefix = list_prefix(resource, namespace);
        for entry in snapshot.range(&prefix, None) {
            let Ok(object) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
            if !usage::in_scope(quota, resource, &object) {
                continue;
            }
            for (name, amount) in usage::of(resource, &object) {
                if let Some(sum) = used.get_mut(&name) {
                    *sum = if sum.is_zero() { amount } else { sum.plus(&amount) };
                }
            }
        }
        seen.push((plural, group));
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_comes_into_a_scope_is_asked_for_in_full() {
        let row = mini_resources::Registry::builtin().get("", "v1", "pods").unwrap();
        let quota = json!({"spec": {"hard": {"pods": "1", "requests.cpu": "1"}, "scopes": ["NotBestEffort"]}});
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        let (old, new) = (pod(json!({})), pod(json!({"requests": {"cpu": "2"}})));
        let asked = |old| {
            let asked = asked(&row, &quota, &hard(&quota), &new, old);
            asked.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>()
        };
        assert_eq!(asked(Some(&old)), ["pods=1", "requests.cpu=2"]);
        assert_eq!(asked(Some(&pod(json!({"requests": {"cpu": "1"}})))), ["requests.cpu=1"]);
    }
}
