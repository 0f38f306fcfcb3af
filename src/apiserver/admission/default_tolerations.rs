//! `DefaultTolerationSeconds`: a pod stays five minutes on a node that is not ready, unless it says otherwise.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value, meta};
use serde_json::json;

const SECONDS: i64 = 300;

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    let is_pod =
        request.resource.group.is_empty() && request.resource.plural == "pods" && request.subresource.is_empty();
    if is_pod && request.operation == Operation::Create {
        add(request.object);
    }
    Ok(())
}

fn add(pod: &mut Value) {
    let spec = meta::child_mut(meta::object_mut(pod), "spec");
    let tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let tolerated = |key: &str| {
        tolerations.iter().any(|t| {
            let (of, effect) = (t.text(&["key"]), t.text(&["effect"]));
            (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        })
    };
    let missing: Vec<Value> = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .filter(|key| !tolerated(key))
        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
        .collect();
    if !missing.is_empty() {
        spec.insert("tolerations".to_owned(), Value::from([tolerations, missing].concat()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_tolerated_yet() {
        let mut pod = json!({"spec": {"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}});
        add(&mut pod);
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(tolerations.len(), 2);
        assert_eq!(tolerations[1]["key"], "node.kubernetes.io/unreachable");
        let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let before = all.clone();
        add(&mut all);
        assert_eq!(all, before);
    }
}
