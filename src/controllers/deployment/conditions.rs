//! The conditions Available, Progressing and ReplicaFailure, by which `kubectl rollout status` judges.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::status::status_of;
use super::{Rollout, numbers};

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";

const UPDATED: &str = "ReplicaSetUpdated";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

pub(super) fn get<'a>(conditions: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_.as_deref() == Some(kind))
}

fn make(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition unless one of the same status and reason is there.
fn set(conditions: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition) {
    if let Some(present) = get(conditions, condition.type_.as_deref().unwrap_or_default()) {
        if present.status == condition.status && present.reason == condition.reason {
            return;
        }
        if present.status == condition.status {
            condition.last_transition_time.clone_from(&present.last_transition_time);
        }
    }
    conditions.retain(|other| other.type_ != condition.type_);
    conditions.push(condition);
}

fn remove(conditions: &mut Vec<DeploymentCondition>, kind: &str) {
    conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
}

/// The progress deadline, if there is one.
pub(super) fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    (seconds != i32::MAX).then_some(i64::from(seconds))
}

pub(super) fn progressing(rollout: &mut Rollout<'_>, status: &str, reason: &str, message: String) {
    if deadline(rollout.deployment).is_some() {
        let condition = make(PROGRESSING, status, reason, message, rollout.now);
        set(&mut rollout.conditions, condition);
    }
}

/// A paused rollout makes no progress, and is not late either.
pub(super) fn tell_paused(rollout: &mut Rollout<'_>) {
    let reason = get(&rollout.conditions, PROGRESSING).and_then(|condition| condition.reason.clone());
    let paused = rollout.deployment.spec.paused == Some(true);
    let told = reason.as_deref() == Some(PAUSED);
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    if paused && !told {
        progressing(rollout, "Unknown", PAUSED, "Deployment is paused".to_owned());
    } else if !paused && told {
        progressing(rollout, "Unknown", RESUMED, "Deployment is resumed".to_owned());
    }
}

pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wished = Some(numbers::replicas(deployment));
    let count = |count: Option<i32>| Some(count.unwrap_or_default());
    count(status.updated_replicas) == wished
        && count(status.replicas) == wished
        && count(status.available_replicas) == wished
        && status.observed_generation >= deployment.metadata.generation
}

/// More updated, fewer old, more ready or more available pods than the last status told of.
fn has_moved(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or_default();
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

pub(super) fn tell_progress(rollout: &mut Rollout<'_>) {
    let Some(deadline) = deadline(rollout.deployment) else {
        return remove(&mut rollout.conditions, PROGRESSING);
    };
    let deployment = rollout.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let after = status_of(rollout);
    let current = get(&rollout.conditions, PROGRESSING).cloned();
    let told = current.as_ref().is_some_and(|condition| condition.reason.as_deref() == Some(NEW_AVAILABLE));
    if told && after.replicas == after.updated_replicas {
        return;
    }
    let who = match &rollout.new {
        Some(new) => format!("ReplicaSet {:?}", new.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", rollout.name()),
    };
    if is_complete(deployment, &after) {
        progressing(rollout, "True", NEW_AVAILABLE, format!("{who} has successfully progressed."));
    } else if has_moved(&before, &after) {
        let mut condition = make(PROGRESSING, "True", UPDATED, format!("{who} is progressing."), rollout.now);
        if let Some(current) = current.filter(|current| current.status.as_deref() == Some("True")) {
            condition.last_transition_time = current.last_transition_time;
        }
        // Also with the same reason: its update time says when progress was last seen.
        remove(&mut rollout.conditions, PROGRESSING);
        rollout.conditions.push(condition);
    } else if is_late(&rollout.conditions, deadline, rollout.now) {
        progressing(rollout, "False", TIMED_OUT, format!("{who} has timed out progressing."));
    }
}

fn is_late(conditions: &[DeploymentCondition], deadline: i64, now: Timestamp) -> bool {
    let Some(condition) = get(conditions, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition
            .last_update_time
            .as_ref()
            .is_some_and(|time| now.duration_since(time.0) > SignedDuration::from_secs(deadline)),
    }
}

/// When to look again whether a rollout without progress is late.
pub(super) fn next_look(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<Duration> {
    let deadline = deadline(rollout.deployment)?;
    let condition = get(&rollout.conditions, PROGRESSING)?;
    // A paused rollout is never late, however long it rests.
    let paused = rollout.deployment.spec.paused == Some(true);
    if paused || is_complete(rollout.deployment, status) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let since = rollout.now.duration_since(condition.last_update_time.as_ref()?.0);
    // One second more: times are kept in whole seconds.
    Duration::try_from(SignedDuration::from_secs(deadline + 1) - since).ok().or(Some(Duration::from_secs(1)))
}

/// The conditions as they follow from the counts, on top of those the rollout set.
pub(super) fn finish(rollout: &Rollout<'_>, available: i32) -> Vec<DeploymentCondition> {
    let mut conditions = rollout.conditions.clone();
    let least = numbers::replicas(rollout.deployment) - numbers::max_unavailable(rollout.deployment);
    let (status, reason, message) = if available >= least {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, make(AVAILABLE, status, reason, message.to_owned(), rollout.now));
    let failures = rollout.new.iter().chain(&rollout.old);
    let failure = failures
        .filter_map(|set| set.status.as_ref())
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_.as_deref() == Some(FAILURE));
    match failure {
        Some(failure) => {
            let failure = DeploymentCondition {
                type_: Some(FAILURE.to_owned()),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            };
            set(&mut conditions, failure);
        }
        None => remove(&mut conditions, FAILURE),
    }
    conditions
}
