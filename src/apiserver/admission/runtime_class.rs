//! `RuntimeClass`: a pod's class says what its sandbox takes besides its containers, and on which nodes it can run.

use super::{Operation, Request};
use mini_api::quantity::Quantity;
use mini_api::{Meta, Status, Value, meta};

const OTHER: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const NONE: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

fn concerns(request: &Request<'_>) -> bool {
    let resource = request.resource;
    let is_pod = resource.group.is_empty() && resource.plural == "pods" && request.subresource.is_empty();
    is_pod && request.operation == Operation::Create
}

/// The class that a pod names, if it names one.
fn class(request: &Request<'_>) -> Result<Value, Status> {
    let name = request.object.text(&["spec", "runtimeClassName"]);
    if name.is_empty() {
        return Ok(Value::Null);
    }
    let entry = request.server.store.snapshot().get(&format!("/registry/runtimeclasses.node.k8s.io/{name}"));
    let entry = entry.ok_or_else(|| refused(request, &format!("pod rejected: RuntimeClass {name:?} not found")))?;
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

fn refused(request: &Request<'_>, why: &str) -> Status {
    Status::forbidden("", "pods", request.name, why)
}

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    let class = class(request)?;
    apply(request.object, &class).map_err(|why| refused(request, &why))
}

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    if !concerns(request) {
        return Ok(());
    }
    let class = class(request)?;
    let given = request.object.pointer("/spec/overhead");
    match (overhead(&class), given) {
        (Some(fixed), given) if !alike(fixed, given.unwrap_or(&Value::Null)) => Err(refused(request, OTHER)),
        (None, Some(_)) => Err(refused(request, NONE)),
        _ => Ok(()),
    }
}

/// What the class adds to each pod; `None` where it says nothing of that.
fn overhead(class: &Value) -> Option<&Value> {
    class.get("overhead").map(|overhead| overhead.get("podFixed").unwrap_or(&Value::Null))
}

/// Whether both hold the same amounts, however written.
fn alike(one: &Value, other: &Value) -> bool {
    let amounts = |list: &Value| {
        let fields = list.as_object().into_iter().flatten();
        let read = |(name, amount): (&String, &Value)| {
            Some((name.clone(), Quantity::parse(amount.as_str().unwrap_or_default()).ok()?))
        };
        fields.map(read).collect::<Option<std::collections::BTreeMap<_, _>>>()
    };
    amounts(one) == amounts(other)
}

fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    let spec = meta::child_mut(meta::object_mut(pod), "spec");
    if let Some(fixed) = overhead(class) {
        if spec.get("overhead").is_some_and(|given| !alike(fixed, given)) {
            return Err(OTHER.to_owned());
        }
        if fixed.is_object() {
            spec.insert("overhead".to_owned(), fixed.clone());
        }
    }
    let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    for (label, wanted) in selector.into_iter().flatten() {
        let mine = meta::child_mut(spec, "nodeSelector");
        if let Some(given) = mine.get(label).filter(|given| *given != wanted) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (wanted, given) = (text(wanted), text(given));
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {wanted}; pod.spec.nodeSelector[{label}] = {given}"
            ));
        }
        mine.insert(label.clone(), wanted.clone());
    }
    let theirs = class.pointer("/scheduling/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    if !theirs.is_empty() {
        let own = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        spec.insert("tolerations".to_owned(), Value::from(merged(&[own, theirs].concat())));
    }
    Ok(())
}

/// Those that no other one makes superfluous.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let before = kept.iter().any(|other| covers(other, one));
        let after = all.iter().skip(at + 1).any(|other| other != one && covers(other, one));
        if !before && !after {
            kept.push(one.clone());
        }
    }
    kept
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let of = |toleration: &'_ Value, field: &str| toleration.text(&[field]).to_owned();
    let exists = of(wide, "operator") == "Exists";
    let any_key = of(wide, "key").is_empty() && exists;
    let any_effect = of(wide, "effect").is_empty();
    if (of(wide, "key") != of(narrow, "key") && !any_key) || (of(wide, "effect") != of(narrow, "effect") && !any_effect)
    {
        return false;
    }
    let seconds = |toleration: &Value| toleration.get("tolerationSeconds").and_then(Value::as_i64);
    if of(wide, "effect") == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|asked| asked > most)
    {
        return false;
    }
    exists || (of(narrow, "operator") != "Exists" && of(wide, "value") == of(narrow, "value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_adds_its_overhead_and_its_nodes() {
        let class = json!({"overhead": {"podFixed": {"cpu": "250m", "memory": "120Mi"}},
            "scheduling": {"nodeSelector": {"runtime": "kata"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "kata", "operator": "Equal", "value": "x"}, {"key": "other", "operator": "Exists"}]}});
        apply(&mut pod, &class).unwrap();
        let expected = json!({"overhead": {"cpu": "250m", "memory": "120Mi"},
            "nodeSelector": {"disk": "ssd", "runtime": "kata"},
            "tolerations": [{"key": "other", "operator": "Exists"}, {"key": "kata", "operator": "Exists"}]});
        assert_eq!(pod["spec"], expected);
        let mut same = json!({"spec": {"overhead": {"cpu": "0.25", "memory": "120Mi"}}});
        assert!(apply(&mut same, &class).is_ok());
        let mut other = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert_eq!(apply(&mut other, &class).unwrap_err(), OTHER);
        let mut elsewhere = json!({"spec": {"nodeSelector": {"runtime": "runc"}}});
        assert_eq!(
            apply(&mut elsewhere, &class).unwrap_err(),
            "conflict: runtimeClass.scheduling.nodeSelector[runtime] = kata; pod.spec.nodeSelector[runtime] = runc"
        );
        let mut plain = json!({"spec": {}});
        apply(&mut plain, &Value::Null).unwrap();
        assert_eq!(plain, json!({"spec": {}}));
    }

    #[test]
    fn tolerations_that_others_cover_go() {
        let row = |key: &str, effect: &str, seconds: Option<i64>| {
            let mut toleration = json!({"key": key, "operator": "Exists", "effect": effect});
            if let Some(seconds) = seconds {
                toleration["tolerationSeconds"] = json!(seconds);
            }
            toleration
        };
        let short = row("a", "NoExecute", Some(10));
        let long = row("a", "NoExecute", Some(20));
        let all = row("", "", None);
        assert_eq!(merged(&[short.clone(), long.clone()]), std::slice::from_ref(&long));
        assert_eq!(merged(&[long.clone(), row("b", "NoSchedule", None)]).len(), 2);
        assert_eq!(merged(&[short, all.clone(), long]), [all]);
    }
}
