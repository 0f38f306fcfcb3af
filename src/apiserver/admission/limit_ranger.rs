//! `LimitRanger`: containers get the defaults of their namespace's LimitRanges, and nothing leaves their bounds.

use super::{Operation, Request};
use mini_api::{Meta, Status, Value, meta, quantity::Quantity};
use std::collections::BTreeMap;

const PREFIX: &str = "/registry/limitranges/";
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

fn is_pod(request: &Request<'_>) -> bool {
    let resource = request.resource;
    resource.group.is_empty()
        && resource.plural == "pods"
        && matches!((request.operation, request.subresource), (Operation::Create, "") | (Operation::Update, "resize"))
}

fn is_claim(request: &Request<'_>) -> bool {
    let resource = request.resource;
    resource.group.is_empty()
        && resource.plural == "persistentvolumeclaims"
        && request.subresource.is_empty()
        && matches!(request.operation, Operation::Create | Operation::Update)
}

/// The limits that hold in a namespace.
fn limits(request: &Request<'_>) -> Vec<Value> {
    let snapshot = request.server.store.snapshot();
    let prefix = format!("{PREFIX}{}/", request.namespace);
    let ranges = snapshot.range(&prefix, None).filter_map(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok());
    ranges.flat_map(|range| list(&range, "/spec/limits").to_vec()).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object);
    let parse = |(name, amount): (&String, &Value)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?));
    map.into_iter().flatten().filter_map(parse).collect()
}

pub(super) fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    if is_pod(request) && request.operation == Operation::Create {
        let limits = limits(request);
        add_defaults(request.object, &limits);
    }
    Ok(())
}

fn add_defaults(pod: &mut Value, limits: &[Value]) {
    let of_containers = || limits.iter().filter(|limit| limit.text(&["type"]) == "Container");
    // Of several ranges the last one to name a default counts.
    let merged = |field: &str| -> serde_json::Map<String, Value> {
        of_containers().filter_map(|limit| limit.get(field)?.as_object().cloned()).flatten().collect()
    };
    let defaults = [("requests", "request", merged("defaultRequest")), ("limits", "limit", merged("default"))];
    let mut told = Vec::new();
    for (path, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.get_mut("spec").and_then(|spec| spec.get_mut(path)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.text(&["name"]).to_owned();
            for (field, word, defaults) in &defaults {
                let resources = meta::child_mut(meta::object_mut(container), "resources");
                let present = meta::child_mut(resources, field);
                let missing: Vec<&String> = defaults.keys().filter(|name| !present.contains_key(*name)).collect();
                let names = missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
                for name in missing {
                    present.insert(name.clone(), defaults[name].clone());
                }
                if present.is_empty() {
                    resources.remove(*field);
                }
                if !names.is_empty() {
                    told.push(format!("{names} {word} for {kind} {name}"));
                }
            }
        }
    }
    if !told.is_empty() {
        let annotations = meta::child_mut(pod.meta_mut(), "annotations");
        annotations.insert(ANNOTATION.to_owned(), format!("LimitRanger plugin set: {}", told.join("; ")).into());
    }
}

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    let errors = if is_pod(request) {
        check_pod(request.object, &limits(request))
    } else if is_claim(request) {
        check_claim(request.object, &limits(request))
    } else {
        return Ok(());
    };
    let why = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(Status::forbidden("", &request.resource.plural, request.object.name(), &why))
}

fn resources(container: &Value) -> [Amounts; 2] {
    ["requests", "limits"].map(|field| amounts(container.get("resources").and_then(|resources| resources.get(field))))
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = sum.entry(name.clone()).or_insert_with(|| Quantity::from_milli(0));
        *sum = if sum.is_zero() { *amount } else { sum.plus(amount) };
    }
}

/// What a pod asks for and may take in all: its containers together, or more while one of its init containers runs.
pub(crate) fn total(pod: &Value, of: usize) -> Amounts {
    let take = |container: &Value| resources(container).into_iter().nth(of).unwrap_or_default();
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in list(pod, "/spec/initContainers") {
        let mut now = sidecars.clone();
        add(&mut now, &take(container));
        if container.text(&["restartPolicy"]) == "Always" {
            sidecars.clone_from(&now);
        }
        for (name, amount) in now {
            let most = most.entry(name).or_insert(amount);
            *most = (*most).max(amount);
        }
    }
    let mut all = sidecars;
    list(pod, "/spec/containers").iter().for_each(|container| add(&mut all, &take(container)));
    for (name, amount) in most {
        let all = all.entry(name).or_insert(amount);
        *all = (*all).max(amount);
    }
    if let Some(whole) = whole(pod) {
        let said = resources(whole).into_iter().nth(of).unwrap_or_default();
        all.extend(said.into_iter().filter(|(name, _)| is_of_pods(name)));
    }
    all
}

/// What can be said of a pod as a whole.
fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// The part of a pod that says what it takes as a whole, whatever its containers say.
pub(crate) fn whole(pod: &Value) -> Option<&Value> {
    let spec = pod.get("spec")?;
    let said = resources(spec);
    said.iter().any(|amounts| amounts.keys().any(|name| is_of_pods(name))).then_some(spec)
}

fn check_pod(pod: &Value, limits: &[Value]) -> Vec<String> {
    let mut errors = Vec::new();
    for limit in limits {
        match limit.text(&["type"]) {
            "Container" => {
                let containers = list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers"));
                containers.for_each(|container| check(limit, "Container", &resources(container), &mut errors));
            }
            "Pod" => check(limit, "Pod", &[total(pod, 0), total(pod, 1)], &mut errors),
            _ => {}
        }
    }
    errors
}

fn check_claim(claim: &Value, limits: &[Value]) -> Vec<String> {
    let requests = amounts(claim.pointer("/spec/resources/requests"));
    let mut errors = Vec::new();
    for limit in limits.iter().filter(|limit| limit.text(&["type"]) == "PersistentVolumeClaim") {
        for (word, field) in [("minimum", "min"), ("maximum", "max")] {
            for (name, bound) in amounts(limit.get(field)) {
                let rule = format!("{word} {name} usage per PersistentVolumeClaim is {bound}");
                match requests.get(&name) {
                    None => errors.push(format!("{rule}. No request is specified")),
                    Some(asked) if (word == "minimum" && *asked < bound) || (word == "maximum" && *asked > bound) => {
                        errors.push(format!("{rule}, but request is {asked}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    errors
}

fn check(limit: &Value, per: &str, [requests, limits]: &[Amounts; 2], errors: &mut Vec<String>) {
    for (name, least) in amounts(limit.get("min")) {
        let rule = format!("minimum {name} usage per {per} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{rule}. No request is specified")),
            (Some(request), _) if *request < least => errors.push(format!("{rule}, but request is {request}")),
            (_, Some(limit)) if *limit < least => errors.push(format!("{rule}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in amounts(limit.get("max")) {
        let rule = format!("maximum {name} usage per {per} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{rule}. No limit is specified")),
            (_, Some(limit)) if *limit > most => errors.push(format!("{rule}, but limit is {limit}")),
            (Some(request), _) if *request > most => errors.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        let rule = format!("{name} max limit to request ratio per {per} is {ratio}");
        let present = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        match (present(requests), present(limits)) {
            (None, _) => errors.push(format!("{rule}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{rule}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let provided = thousandths(&limit) / thousandths(&request);
                if provided > thousandths(&ratio) / 1000.0 {
                    errors.push(format!("{rule}, but provided ratio is {provided:.6}"));
                }
            }
        }
    }
}

fn thousandths(amount: &Quantity) -> f64 {
    // Beyond what thousandths can count, whole units say enough.
    match amount.milli() {
        i64::MAX => amount.value() as f64 * 1000.0,
        milli => milli as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn defaults_fill_what_is_left_out_and_say_so() {
        let limits = [json!({"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"},
            "defaultRequest": {"cpu": "100m"}})];
        let mut filled = pod(json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}));
        add_defaults(&mut filled, &limits);
        let wanted = json!({"limits": {"memory": "1Gi", "cpu": "500m"}, "requests": {"memory": "1Gi", "cpu": "100m"}});
        assert_eq!(filled["spec"]["containers"][0]["resources"], wanted);
        let said = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(filled["metadata"]["annotations"][ANNOTATION], said);
    }

    #[test]
    fn bounds_hold_for_containers_and_pods() {
        let container = json!({"type": "Container", "min": {"memory": "1Mi"}, "max": {"cpu": "1"},
            "maxLimitRequestRatio": {"cpu": "2"}});
        let all = json!({"type": "Pod", "max": {"cpu": "1"}});
        let said = |limits: &[Value], resources| check_pod(&pod(resources), limits);
        let fine = json!({"requests": {"cpu": "500m", "memory": "1Mi"}, "limits": {"cpu": "1"}});
        assert!(said(&[container.clone(), all.clone()], fine).is_empty());
        let wide = json!({"requests": {"cpu": "500m", "memory": "1Ki"}, "limits": {"cpu": "1500m"}});
        let wanted = [
            "minimum memory usage per Container is 1Mi, but request is 1Ki",
            "maximum cpu usage per Container is 1, but limit is 1500m",
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            "maximum cpu usage per Pod is 1, but limit is 1500m",
        ];
        assert_eq!(said(&[container, all.clone()], wide), wanted);
        assert_eq!(said(&[all], json!({})), ["maximum cpu usage per Pod is 1. No limit is specified"]);
    }

    #[test]
    fn init_containers_count_where_they_need_more() {
        let mut many = pod(json!({"requests": {"cpu": "1"}}));
        many["spec"]["initContainers"] = json!([
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "first", "resources": {"requests": {"cpu": "2"}}}]);
        assert_eq!(total(&many, 0)["cpu"], Quantity::parse("2500m").unwrap());
    }

    #[test]
    fn what_a_pod_says_as_a_whole_counts() {
        let mut pod = pod(json!({"requests": {"cpu": "1", "example.com/gpu": "1"}}));
        pod["spec"]["resources"] = json!({"requests": {"cpu": "3"}, "limits": {"memory": "1Gi"}});
        assert_eq!(total(&pod, 0)["cpu"], Quantity::parse("3").unwrap());
        assert_eq!(total(&pod, 0)["example.com/gpu"], Quantity::parse("1").unwrap());
        let most = [json!({"type": "Pod", "max": {"cpu": "2", "memory": "512Mi"}})];
        let wanted = [
            "maximum cpu usage per Pod is 2. No limit is specified",
            "maximum memory usage per Pod is 512Mi, but limit is 1Gi",
        ];
        assert_eq!(check_pod(&pod, &most), wanted);
    }

    #[test]
    fn claims_keep_to_their_sizes() {
        let limit = [json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}})];
        let said = |size: &str| check_claim(&json!({"spec": {"resources": {"requests": {"storage": size}}}}), &limit);
        assert!(said("2Gi").is_empty());
        assert_eq!(said("6Gi"), ["maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi"]);
        assert_eq!(said("1Mi"), ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]);
    }
}
