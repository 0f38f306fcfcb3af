//! Brings an addon's objects into the cluster and out of it again.

use super::cluster::{Cluster, Id};
use super::merge::{merged, without_nulls};
use super::{Error, Steps};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "mini");
pub(super) const ADDON_LABEL: &str = "mini.local/addon";
/// The manifest as it was applied last.
const APPLIED: &str = "mini.local/applied";
/// Where objects go that name no namespace.
pub(super) const NAMESPACE: &str = "kube-system";

/// Made in this order, removed in the other; kinds that are not named come between.
const FIRST: &[&str] = &[
    "Namespace",
    "CustomResourceDefinition",
    "PriorityClass",
    "StorageClass",
    "IngressClass",
    "ServiceAccount",
    "ConfigMap",
    "Secret",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Service",
];
const LAST: &[&str] = &[
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "APIService",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];
/// What they made goes before them, so that their end is the end of their pods.
const WORKLOADS: &[&str] =
    &["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"];
/// Holding what cannot be made anew.
const NEVER_REPLACED: &[&str] = &["Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition"];

/// How long a kind that an addon itself brings may take to be served.
const SERVED_WITHIN: Duration = Duration::from_secs(15);
/// How long removed objects may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(25);

fn rank(kind: &str) -> usize {
    let place = |list: &[&str]| list.iter().position(|one| *one == kind);
    match (place(FIRST), place(LAST)) {
        (Some(place), _) => place,
        (None, Some(place)) => FIRST.len() + 1 + place,
        (None, None) => FIRST.len(),
    }
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
enum Plan {
    Create,
    Nothing,
    /// A merge patch.
    Change(Value),
}

fn plan(live: Option<&Value>, want: &Value) -> Plan {
    let Some(live) = live else { return Plan::Create };
    let last = live["metadata"]["annotations"][APPLIED].as_str().and_then(|text| serde_json::from_str(text).ok());
    let after = merged(live, &last.unwrap_or(Value::Null), want);
    if after == *live {
        return Plan::Nothing;
    }
    let mut patch = mini_api::patch::merge::diff(live, &after);
    patch["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    Plan::Change(patch)
}

/// What a live object is to an addon.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Ours,
    /// Another addon, or whoever made it.
    Other(String),
}

fn owner(live: &Value, addon: &str, recorded: bool) -> Owner {
    match live["metadata"]["labels"][ADDON_LABEL].as_str() {
        Some(label) if label == addon => Owner::Ours,
        Some(label) => Owner::Other(format!("the addon {label}")),
        None if recorded => Owner::Ours,
        None => Owner::Other("someone else".to_owned()),
    }
}

/// Labels, and the manifest for the next comparison.
fn prepared(object: Value, addon: &str) -> Value {
    let mut object = without_nulls(object);
    for (label, value) in [MANAGED_BY, (ADDON_LABEL, addon)] {
        object["metadata"]["labels"][label] = value.into();
    }
    let applied = object.to_string();
    object["metadata"]["annotations"][APPLIED] = applied.into();
    object
}

/// The objects in the order of making, each with its namespace.
///
/// # Errors
/// A kind is not served, and no CRD among the objects brings it.
pub(super) async fn arranged(cluster: &Cluster, mut objects: Vec<Value>) -> Result<Vec<Value>, Error> {
    objects.sort_by_key(|object| rank(object["kind"].as_str().unwrap_or_default()));
    for place in 0..objects.len() {
        let (before, rest) = objects.split_at_mut(place);
        let Some(object) = rest.first_mut() else { break };
        let id = Id::of(object);
        let namespaced = match cluster.served(&id.api_version, &id.kind).await? {
            Some(served) => served.namespaced,
            None => brought(before, &id).ok_or(Error::NotServed { api_version: id.api_version, kind: id.kind })?,
        };
        let meta = &mut object["metadata"];
        match (namespaced, id.namespace) {
            (true, None) => meta["namespace"] = NAMESPACE.into(),
            (false, Some(_)) => drop(meta.as_object_mut().map(|meta| meta.remove("namespace"))),
            _ => {}
        }
    }
    Ok(objects)
}

/// Is a kind's CRD among the objects, and is it namespaced?
fn brought(objects: &[Value], id: &Id) -> Option<bool> {
    let group = id.api_version.split_once('/')?.0;
    let crd = objects.iter().find(|object| {
        object["kind"] == "CustomResourceDefinition"
            && object["spec"]["group"] == group
            && object["spec"]["names"]["kind"] == id.kind.as_str()
    })?;
    Some(crd["spec"]["scope"] == "Namespaced")
}

/// Which objects an addon has: of its manifests, without namespaces that were there before.
pub(super) async fn owned(
    cluster: &Cluster,
    addon: &str,
    objects: &[Value],
    recorded: &[Id],
) -> Result<Vec<Id>, Error> {
    let mut owned = Vec::new();
    for object in objects {
        let id = Id::of(object);
        let live = cluster.get(&id).await?;
        match live.map(|live| owner(&live, addon, recorded.contains(&id))) {
            None | Some(Owner::Ours) => owned.push(id),
            Some(Owner::Other(_)) if id.kind == "Namespace" => {}
            Some(Owner::Other(owner)) => return Err(Error::Foreign { what: id.to_string(), owner }),
        }
    }
    Ok(owned)
}

/// Creates and changes until everything is as `objects` (from `arranged`) say; `owned` are those it may touch.
pub(super) async fn apply(
    cluster: &Cluster,
    addon: &str,
    objects: Vec<Value>,
    owned: &[Id],
    steps: &Steps,
) -> Result<(), Error> {
    let mut unchanged = 0;
    for object in objects {
        let id = Id::of(&object);
        if !owned.contains(&id) {
            continue;
        }
        let want = prepared(object, addon);
        let done = match apply_one(cluster, &id, &want).await {
            Err(error) if error.status().is_some_and(|status| status.code == 409) => {
                apply_one(cluster, &id, &want).await
            }
            done => done,
        };
        match done.map_err(|error| Error::Refused { what: id.to_string(), source: Box::new(error) })? {
            None => unchanged += 1,
            Some(done) => steps.say(format!("{id} {done}")),
        }
    }
    if unchanged > 0 {
        steps.say(format!("{unchanged} object{} unchanged", if unchanged == 1 { "" } else { "s" }));
    }
    Ok(())
}

/// What was done, if anything.
async fn apply_one(cluster: &Cluster, id: &Id, want: &Value) -> Result<Option<&'static str>, Error> {
    let begun = Instant::now();
    while cluster.served(&id.api_version, &id.kind).await?.is_none() && begun.elapsed() < SERVED_WITHIN {
        sleep(PAUSE).await;
    }
    let live = cluster.get(id).await?;
    match plan(live.as_ref(), want) {
        Plan::Nothing => Ok(None),
        Plan::Create => cluster.create(want).await.map(|_| Some("created")),
        Plan::Change(patch) => match cluster.patch(id, &patch).await {
            // The server may see no difference where the text has one: "1000m" is "1".
            Ok(after) if after["metadata"]["resourceVersion"] == patch["metadata"]["resourceVersion"] => Ok(None),
            Ok(_) => Ok(Some("changed")),
            Err(error) if is_fixed(&error) && !NEVER_REPLACED.contains(&id.kind.as_str()) => {
                remove(cluster, std::slice::from_ref(id)).await?;
                cluster.create(want).await.map(|_| Some("made anew"))
            }
            Err(error) => Err(error),
        },
    }
}

/// A change was refused because the field cannot change.
fn is_fixed(error: &Error) -> bool {
    let says = |message: &str| {
        ["immutable", "may not be changed", "may not change", "cannot change", "updates to"]
            .iter()
            .any(|sign| message.contains(sign))
    };
    error.status().is_some_and(|status| status.code == 422 && says(&status.message))
}

/// Everything in the cluster that is this addon's: what is recorded, and what carries its label among the kinds recorded.
pub(super) async fn everything(cluster: &Cluster, addon: &str, recorded: &[Id]) -> Result<Vec<Id>, Error> {
    let mut found: Vec<Id> = recorded.to_vec();
    let kinds: BTreeSet<(&str, &str)> = recorded
        .iter()
        .map(|id| (id.api_version.as_str(), id.kind.as_str()))
        .filter(|(_, kind)| *kind != "Namespace")
        .chain([("v1", "ConfigMap"), ("v1", "Secret")])
        .collect();
    for (api_version, kind) in kinds {
        let labelled = cluster.list(api_version, kind, None, &format!("labelSelector={ADDON_LABEL}%3D{addon}")).await?;
        for id in labelled.iter().map(Id::of) {
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }
    Ok(found)
}

/// Those of `recorded` that are still there and were not given to someone else since.
pub(super) async fn still_ours(cluster: &Cluster, addon: &str, recorded: Vec<Id>) -> Result<Vec<Id>, Error> {
    let mut ours = Vec::new();
    for id in recorded {
        if cluster.get(&id).await?.is_some_and(|live| owner(&live, addon, true) == Owner::Ours) {
            ours.push(id);
        }
    }
    Ok(ours)
}

/// Deletes in the reverse order of making, each kind when those made after it are gone.
pub(super) async fn remove(cluster: &Cluster, ids: &[Id]) -> Result<(), Error> {
    let ranks: BTreeSet<usize> = ids.iter().map(|id| rank(&id.kind)).collect();
    for rank_now in ranks.into_iter().rev() {
        let group: Vec<&Id> = ids.iter().filter(|id| rank(&id.kind) == rank_now).collect();
        for id in &group {
            cluster.delete(id, WORKLOADS.contains(&id.kind.as_str())).await?;
        }
        for id in group {
            until_gone(cluster, id).await?;
        }
    }
    Ok(())
}

async fn until_gone(cluster: &Cluster, id: &Id) -> Result<(), Error> {
    let begun = Instant::now();
    while let Some(live) = cluster.get(id).await? {
        if live["metadata"]["deletionTimestamp"].is_null() {
            // Someone made it again; it is theirs.
            return Ok(());
        }
        if begun.elapsed() > GONE_WITHIN {
            let finalizers = live["metadata"]["finalizers"].to_string();
            return Err(Error::NotGone { what: id.to_string(), finalizers, seconds: GONE_WITHIN.as_secs() });
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// How many of each kind, for a sentence.
pub(super) fn counted(ids: &[Id]) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for id in ids {
        match kinds.iter_mut().find(|(kind, _)| *kind == id.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((&id.kind, 1)),
        }
    }
    let parts: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    parts.join(", ")
}

/// The labels of an object of ours.
pub(super) fn record_labels() -> Value {
    json!({ MANAGED_BY.0: MANAGED_BY.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": data})
    }

    #[test]
    fn what_was_applied_is_left_alone_and_what_changed_is_patched() {
        let want = prepared(map(&json!({"a": "1", "b": "2"})), "x");
        assert_eq!(plan(None, &want), Plan::Create);
        let mut live = want.clone();
        live["metadata"]["uid"] = "u".into();
        live["metadata"]["resourceVersion"] = "7".into();
        live["data"]["users"] = "own".into();
        assert_eq!(plan(Some(&live), &want), Plan::Nothing);

        let next = prepared(map(&json!({"a": "3"})), "x");
        let Plan::Change(patch) = plan(Some(&live), &next) else { panic!() };
        assert_eq!(patch["data"], json!({"a": "3", "b": null}));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        mini_api::patch::merge::apply(&mut live, patch);
        assert_eq!(live["data"], json!({"a": "3", "users": "own"}));
        assert_eq!(plan(Some(&live), &next), Plan::Nothing);
    }

    #[test]
    fn what_a_user_changed_comes_back() {
        let want = prepared(map(&json!({"a": "1"})), "x");
        let mut live = want.clone();
        live["data"]["a"] = "9".into();
        let Plan::Change(patch) = plan(Some(&live), &want) else { panic!() };
        assert_eq!(patch["data"], json!({"a": "1"}));
    }

    #[test]
    fn only_what_is_labelled_or_recorded_is_ours() {
        let live =
            |label: Option<&str>| json!({"metadata": {"labels": label.map(|label| json!({ADDON_LABEL: label}))}});
        assert_eq!(owner(&live(Some("x")), "x", false), Owner::Ours);
        assert_eq!(owner(&live(None), "x", true), Owner::Ours);
        assert_eq!(owner(&live(None), "x", false), Owner::Other("someone else".into()));
        assert_eq!(owner(&live(Some("y")), "x", true), Owner::Other("the addon y".into()));
    }

    #[test]
    fn kinds_are_made_before_what_needs_them() {
        let mut kinds = ["Deployment", "Widget", "APIService", "Namespace", "Service", "CustomResourceDefinition"];
        kinds.sort_by_key(|kind| rank(kind));
        assert_eq!(kinds, ["Namespace", "CustomResourceDefinition", "Service", "Widget", "Deployment", "APIService"]);
        let crd = json!({"kind": "CustomResourceDefinition",
                         "spec": {"group": "g.io", "scope": "Namespaced", "names": {"kind": "Widget"}}});
        assert_eq!(brought(std::slice::from_ref(&crd), &Id::new("g.io/v1", "Widget", None, "w")), Some(true));
        assert_eq!(brought(&[crd], &Id::new("v1", "Widget", None, "w")), None);
        let ids =
            [Id::new("v1", "Secret", None, "a"), Id::new("v1", "Secret", None, "b"), Id::new("v1", "Pod", None, "c")];
        assert_eq!(counted(&ids), "2 Secret, 1 Pod");
    }
}
