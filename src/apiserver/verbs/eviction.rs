//! `pods/eviction`: a deletion that asks the PodDisruptionBudgets first.

use super::{binding, delete};
use crate::body::Body;
use crate::negotiate::{self, Output};
use crate::options::DeleteOptions;
use crate::{Call, call, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::{LabelSelector, Meta, Reason, Status, StatusCause, Value};
use serde_json::json;

pub(super) async fn run(call: &Call, body: Bytes) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let eviction = negotiate::parse(negotiate::media(&call.headers)?, &body)?;
    binding::check_type(&eviction, "policy/v1", "Eviction")?;
    if !eviction.name().is_empty() && eviction.name() != call.info.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = DeleteOptions::from_value(eviction.get("deleteOptions").unwrap_or(&json!({})))?;
    options.dry_run |= call.query.get("dryRun").is_some_and(|v| !v.is_empty());
    let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
    let pod = object::read(&call.resource, &entry)?;
    let finished = matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed" | "Pending");
    if !finished && !pod.is_deleting() {
        ask_budgets(call, &pod)?;
    }
    delete::object(call, &call.info.name, &options).await?;
    let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    output.respond(StatusCode::CREATED, Bytes::from(answer.to_string()))
}

/// The seam for PodDisruptionBudgets: nothing stands in the way of an eviction until their row is in the table.
/// 429 if a budget allows no disruption now.
fn ask_budgets(call: &Call, pod: &Value) -> Result<(), Status> {
    let Some(budgets) = call.server.registry.get("policy", "v1", "poddisruptionbudgets") else { return Ok(()) };
    let prefix = call::list_prefix(&budgets, &call.info.namespace);
    let snapshot = call.server.store.snapshot();
    for entry in snapshot.range(&prefix, None) {
        let budget = object::read(&budgets, &entry)?;
        let selector = budget.pointer("/spec/selector").unwrap_or(&Value::Null);
        if !LabelSelector::from_value(selector).is_ok_and(|s| s.matches(pod.labels())) {
            continue;
        }
        if budget.pointer("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0) > 0 {
            continue;
        }
        let number = |path: &str| budget.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let mut status =
            Status::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.");
        status.causes.push(StatusCause {
            reason: "DisruptionBudget".to_owned(),
            message: format!(
                "The disruption budget {} needs {} healthy pods and has {} currently",
                budget.name(),
                number("/status/desiredHealthy"),
                number("/status/currentHealthy")
            ),
            field: String::new(),
        });
        return Err(status);
    }
    Ok(())
}
