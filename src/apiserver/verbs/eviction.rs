//! `pods/eviction`: a deletion that asks the PodDisruptionBudgets first.

use super::create::store_failed;
use super::{binding, delete};
use crate::body::Body;
use crate::negotiate::{self, Output};
use crate::options::DeleteOptions;
use crate::{Call, call, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::meta::{child_mut, object_mut};
use mini_api::{LabelSelector, Meta, Reason, Status, StatusCause, Value};
use mini_resources::Resource;
use mini_store::{Entry, Error, Expect, Op};
use serde_json::json;
use std::sync::Arc;

const ATTEMPTS: usize = 32;
/// Evicted pods that a budget remembers.
const MOST_NOTED: usize = 2000;

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::without_tables(&call.headers, &call.query)?;
    let eviction = negotiate::parse(negotiate::media(&call.headers)?, &body)?;
    binding::check_type(&eviction, "policy/v1", "Eviction")?;
    if !eviction.name().is_empty() && eviction.name() != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = DeleteOptions::from_value(eviction.get("deleteOptions").unwrap_or(&json!({})))?;
    options.dry_run |= call.query.get("dryRun").is_some_and(|v| !v.is_empty());
    evict(call, &options).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    output.respond(StatusCode::CREATED, Bytes::from(answer.to_string()))
}

async fn evict(call: &Call, asked: &DeleteOptions) -> Result<(), Status> {
    for _ in 0..ATTEMPTS {
        let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
        let pod = object::read(&call.resource, &entry)?;
        delete::check_preconditions(&call.resource, &pod, &entry, asked)?;
        let free = matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed" | "Pending") || pod.is_deleting();
        let judged = free || ask_budget(call, &pod, asked.dry_run).await? == Leave::AsItStands;
        let mut options = asked.clone();
        if judged && options.resource_version.is_none() {
            options.resource_version = Some(entry.revision.to_string());
        }
        match remove(call, &pod, options).await {
            // It is another now, and may be one that a budget counts.
            Err(status) if status.code == 409 && judged && asked.resource_version.is_none() => {}
            done => return done,
        }
    }
    Err(too_fast(&call.resource, &call.info.name))
}

/// Marks the pod and deletes it, in the state that the options name.
async fn remove(call: &Call, pod: &Value, mut options: DeleteOptions) -> Result<(), Status> {
    if !options.dry_run && !pod.is_deleting() {
        let marked = mark(call, &options).await?;
        if let (Some(pinned), Some(revision)) = (&mut options.resource_version, marked) {
            *pinned = revision.to_string();
        }
    }
    delete::object(call, &call.info.name, &options).await.map(drop)
}

fn too_fast(resource: &Resource, name: &str) -> Status {
    Status::conflict(&resource.group, &resource.plural, name, "it changes too fast; please try again")
}

/// Changes a stored object, again and again while others change it too; tells its new revision. Nothing is written
/// where `edit` says so.
async fn change(
    call: &Call,
    resource: &Resource,
    key: Arc<str>,
    edit: impl Fn(&mut Value, &Entry) -> Result<bool, Status>,
) -> Result<Option<u64>, Status> {
    for _ in 0..ATTEMPTS {
        // What is gone needs no change.
        let Some(entry) = call.server.store.snapshot().get(&key) else { return Ok(None) };
        let mut value = object::read(resource, &entry)?;
        if !edit(&mut value, &entry)? {
            return Ok(None);
        }
        let finish = object::stored(resource, &value, None).finish();
        let op = Op::Put { key: key.clone(), expect: Expect::Revision(entry.revision), finish };
        match call.server.store.write(vec![op]).await {
            Ok(written) => return Ok(written.first().map(|entry| entry.revision)),
            Err(Error::Changed { .. }) => {}
            Err(error) => return Err(store_failed(&error)),
        }
    }
    Err(too_fast(resource, &call.info.name))
}

/// The condition by which the pod's controller knows that the pod did not fail.
async fn mark(call: &Call, options: &DeleteOptions) -> Result<Option<u64>, Status> {
    change(call, &call.resource, call.key(&call.info.name).into(), |pod, entry| {
        delete::check_preconditions(&call.resource, pod, entry, options)?;
        let now = mini_api::time::now();
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now});
        let status = child_mut(object_mut(pod), "status");
        let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions.retain(|condition| condition.text(&["type"]) != "DisruptionTarget");
        conditions.push(condition);
        status.insert("conditions".to_owned(), conditions.into());
        Ok(true)
    })
    .await
}

fn number(value: &Value, path: &str) -> i64 {
    value.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let mut ready = conditions.into_iter().flatten().filter(|condition| condition.text(&["type"]) == "Ready");
    ready.any(|condition| condition.text(&["status"]) == "True")
}

/// Why a pod may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// No budget minds, or one was charged.
    Anyway,
    /// It serves nobody now.
    AsItStands,
}

/// Takes the eviction from the pod's budget. 429 if it allows none now.
async fn ask_budget(call: &Call, pod: &Value, dry_run: bool) -> Result<Leave, Status> {
    let Some(budgets) = call.server.registry.get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(Leave::Anyway);
    };
    let prefix = call::list_prefix(&budgets, &call.info.namespace);
    let snapshot = call.server.store.snapshot();
    let mut found = Vec::new();
    for entry in snapshot.range(&prefix, None) {
        let budget = object::read(&budgets, &entry)?;
        let selects = budget.pointer("/spec/selector").filter(|selector| selector.is_object());
        let selects = selects.and_then(|selector| LabelSelector::from_value(selector).ok());
        if selects.is_some_and(|selector| selector.matches(pod.labels())) {
            found.push(budget);
        }
    }
    let budget = match &found[..] {
        [] => return Ok(Leave::Anyway),
        [budget] => budget,
        _ => {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::internal(why));
        }
    };
    if !is_ready(pod) {
        let (current, desired) = (number(budget, "/status/currentHealthy"), number(budget, "/status/desiredHealthy"));
        let always = budget.text(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        // A pod that serves nobody takes nothing away.
        if always || (current >= desired && desired > 0) {
            return Ok(Leave::AsItStands);
        }
    }
    let key = call::object_key(&budgets, &call.info.namespace, budget.name()).into();
    change(call, &budgets, key, |budget, _| charge(budget, pod.name()).map(|()| !dry_run)).await?;
    Ok(Leave::Anyway)
}

/// Takes one disruption from a budget and notes the pod.
fn charge(budget: &mut Value, pod: &str) -> Result<(), Status> {
    const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let refused = |message: String, retry: Option<u32>| {
        let mut status = Status::new(Reason::TooManyRequests, REFUSED);
        status.causes.push(StatusCause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
        status.retry_after_seconds = retry;
        Err(status)
    };
    let name = budget.name().to_owned();
    if number(budget, "/status/observedGeneration") < number(budget, "/metadata/generation") {
        return refused(format!("The disruption budget {name} is still being processed by the server."), Some(10));
    }
    let allowed = number(budget, "/status/disruptionsAllowed");
    let forbidden = |why: &str| Err(Status::forbidden("policy", "poddisruptionbudgets", &name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|noted| noted.len() > MOST_NOTED)
    {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (desired, current) = (number(budget, "/status/desiredHealthy"), number(budget, "/status/currentHealthy"));
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently");
        return refused(why, None);
    }
    let status = child_mut(object_mut(budget), "status");
    status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
    child_mut(status, "disruptedPods").insert(pod.to_owned(), mini_api::time::now().into());
    if allowed == 1
        && let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut)
        && let Some(condition) =
            conditions.iter_mut().find(|condition| condition.text(&["type"]) == "DisruptionAllowed")
    {
        condition["status"] = "False".into();
        condition["reason"] = "InsufficientPods".into();
        condition["lastTransitionTime"] = mini_api::time::now().into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64, observed: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "status": {"disruptionsAllowed": allowed,
            "observedGeneration": observed, "desiredHealthy": 3, "currentHealthy": 3,
            "conditions": [{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]}})
    }

    #[test]
    fn each_eviction_is_charged_until_none_is_left() {
        let mut budget = budget(1, 2);
        charge(&mut budget, "p").unwrap();
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert!(budget["status"]["disruptedPods"]["p"].is_string());
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
        let refused = charge(&mut budget, "q").unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds), (429, None));
        assert_eq!(refused.causes[0].message, "The disruption budget b needs 3 healthy pods and has 3 currently");
    }

    #[test]
    fn a_budget_that_was_not_looked_at_lets_nothing_go() {
        let refused = charge(&mut budget(5, 1), "p").unwrap_err();
        assert_eq!((refused.code, refused.retry_after_seconds), (429, Some(10)));
        assert_eq!(refused.causes[0].message, "The disruption budget b is still being processed by the server.");
    }
}
