//! The annotations in which revisions and sizes are remembered.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::numbers;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const OWN: &[&str] = &[
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
];
/// The history of revisions is cut to this many characters.
const HISTORY_LENGTH: usize = 2000;

pub(super) type Annotations = BTreeMap<String, String>;

pub(super) fn get<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn number(meta: &ObjectMeta, name: &str) -> Option<i32> {
    get(meta, name)?.parse().ok()
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    get(&set.metadata, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// What a ReplicaSet's annotations lack of a Deployment's size.
pub(super) fn sizes(deployment: &Deployment, present: Option<&Annotations>) -> Annotations {
    let wished = numbers::replicas(deployment);
    let most = wished.saturating_add(numbers::max_surge(deployment));
    let sizes = [(DESIRED, wished.to_string()), (MAX, most.to_string())];
    let lacks = |(name, value): &(&str, String)| present.and_then(|p| p.get(*name)) != Some(value);
    sizes.into_iter().filter(lacks).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the annotations of the new ReplicaSet lack: those of the Deployment, and a revision above all old ones.
pub(super) fn missing(deployment: &Deployment, present: Option<&Annotations>, revision: i64) -> Annotations {
    let empty = Annotations::new();
    let present = present.unwrap_or(&empty);
    let inherited = deployment.metadata.annotations.iter().flatten();
    let mut missing: Annotations = inherited
        .filter(|(name, value)| !OWN.contains(&name.as_str()) && present.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let before = present.get(REVISION);
    let number = before.and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    if number < revision {
        missing.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before {
            missing.insert(HISTORY.to_owned(), history(present.get(HISTORY), before));
        }
    }
    missing
}

fn history(past: Option<&String>, before: &str) -> String {
    let mut revisions: Vec<&str> = past.map_or("", String::as_str).split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(before);
    let mut text = revisions.join(",");
    while text.len() > HISTORY_LENGTH && revisions.len() > 1 {
        revisions.remove(0);
        text = revisions.join(",");
    }
    text
}
