//! `Priority`: a pod's class becomes a number.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value, meta};
use serde_json::json;

/// Upstream's own classes, which hold whether or not their objects are there.
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREFIX: &str = "/registry/priorityclasses.scheduling.k8s.io/";

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    let is_pod =
        request.resource.group.is_empty() && request.resource.plural == "pods" && request.subresource.is_empty();
    if !is_pod || request.operation != Operation::Create {
        return Ok(());
    }
    let snapshot = request.server.store.snapshot();
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let name = request.object.text(&["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let classes = snapshot.range(PREFIX, None).filter_map(|entry| parse(&entry.bytes));
        let defaults = classes.filter(|class| class.get("globalDefault") == Some(&Value::Bool(true)));
        // Of several defaults the lowest counts.
        defaults.min_by_key(|class| class.get("value").and_then(Value::as_i64))
    } else if let Some((_, value)) = SYSTEM.iter().find(|(class, _)| *class == name) {
        Some(json!({"metadata": {"name": name}, "value": value}))
    } else {
        let Some(class) = snapshot.get(&format!("{PREFIX}{name}")).and_then(|entry| parse(&entry.bytes)) else {
            let why = format!("no PriorityClass with name {name} was found");
            return Err(Status::forbidden("", "pods", request.name, &why));
        };
        Some(class)
    };
    let class = class.unwrap_or(Value::Null);
    apply(request.object, &class).map_err(|why| Status::forbidden("", "pods", request.name, &why))
}

fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    let spec = meta::child_mut(meta::object_mut(pod), "spec");
    let priority = class.get("value").and_then(Value::as_i64).unwrap_or(0);
    if let Some(given) = spec.get("priority").and_then(Value::as_i64)
        && given != priority
    {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if !class.name().is_empty() {
        spec.insert("priorityClassName".to_owned(), Value::from(class.name()));
    }
    spec.insert("priority".to_owned(), Value::from(priority));
    let policy = match class.text(&["preemptionPolicy"]) {
        "" => "PreemptLowerPriority",
        policy => policy,
    };
    if let Some(given) = spec.get("preemptionPolicy").and_then(Value::as_str)
        && given != policy
    {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.insert("preemptionPolicy".to_owned(), Value::from(policy));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_become_numbers() {
        let mut pod = json!({"spec": {}});
        apply(&mut pod, &Value::Null).unwrap();
        assert_eq!(pod, json!({"spec": {"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}}));
        let mut pod = json!({"spec": {"priorityClassName": "x", "priority": 7}});
        let class = json!({"metadata": {"name": "x"}, "value": 8, "preemptionPolicy": "Never"});
        assert!(apply(&mut pod, &class).unwrap_err().starts_with("the integer value of priority (7)"));
        pod["spec"]["priority"] = json!(8);
        apply(&mut pod, &class).unwrap();
        assert_eq!(pod["spec"]["preemptionPolicy"], "Never");
    }
}
