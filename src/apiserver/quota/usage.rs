//! What one object takes of a quota: itself, and for pods, claims and Services what they ask for.

use super::Amounts;
use crate::admission::{pod_total, pod_whole};
use mini_api::{Meta, Quantity, Value};
use mini_resources::Resource;

const TERMINAL: [&str; 2] = ["Succeeded", "Failed"];
/// Objects of the core group that are counted by their bare name, too.
const PLAIN: [&str; 6] =
    ["services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims"];
/// What every container of a pod must say where a quota limits it.
const SAID: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

fn one() -> Quantity {
    Quantity::from_value(1, mini_api::quantity::Format::DecimalSi)
}

pub(super) fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object);
    let parse = |(name, amount): (&String, &Value)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?));
    map.into_iter().flatten().filter_map(parse).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether an update of this (sub)resource may take more.
pub(super) fn changes(resource: &Resource, subresource: &str) -> bool {
    resource.group.is_empty()
        && match resource.plural.as_str() {
            "pods" => subresource == "resize",
            "services" | "persistentvolumeclaims" => subresource.is_empty(),
            _ => false,
        }
}

/// The kind whose objects an amount is counted from: plural and group.
pub(super) fn counted(name: &str) -> Option<(String, String)> {
    let owned = |plural: &str, group: &str| Some((plural.to_owned(), group.to_owned()));
    if let Some(kind) = name.strip_prefix("count/") {
        let (plural, group) = kind.split_once('.').unwrap_or((kind, ""));
        return owned(plural, group);
    }
    if name.contains(BY_CLASS) || name == "requests.storage" {
        return owned("persistentvolumeclaims", "");
    }
    if name.starts_with("services.") {
        return owned("services", "");
    }
    if PLAIN.contains(&name) { owned(name, "") } else { owned("pods", "") }
}

/// Everything an object takes.
pub(super) fn of(resource: &Resource, object: &Value) -> Amounts {
    let mut taken = Amounts::new();
    let count = match resource.group.as_str() {
        "" => format!("count/{}", resource.plural),
        group => format!("count/{}.{group}", resource.plural),
    };
    taken.insert(count, one());
    if !resource.group.is_empty() {
        return taken;
    }
    if PLAIN.contains(&resource.plural.as_str()) {
        taken.insert(resource.plural.clone(), one());
    }
    match resource.plural.as_str() {
        "pods" => pod(object, &mut taken),
        "services" => service(object, &mut taken),
        "persistentvolumeclaims" => claim(object, &mut taken),
        _ => {}
    }
    taken
}

fn service(service: &Value, taken: &mut Amounts) {
    let kind = service.text(&["spec", "type"]);
    let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
    let ports = match kind {
        "LoadBalancer" if !allocates => {
            list(service, "/spec/ports").iter().filter(|p| p.get("nodePort").is_some()).count()
        }
        "NodePort" | "LoadBalancer" => list(service, "/spec/ports").len(),
        _ => 0,
    };
    let number =
        |n: usize| Quantity::from_value(i64::try_from(n).unwrap_or(i64::MAX), mini_api::quantity::Format::DecimalSi);
    taken.insert("services.nodeports".to_owned(), number(ports));
    taken.insert("services.loadbalancers".to_owned(), number(usize::from(kind == "LoadBalancer")));
}

fn claim(claim: &Value, taken: &mut Amounts) {
    let class = match claim.text(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => claim.text(&["spec", "storageClassName"]),
        class => class,
    };
    let size = Quantity::parse(claim.text(&["spec", "resources", "requests", "storage"])).ok();
    if let Some(size) = size {
        taken.insert("requests.storage".to_owned(), size);
    }
    if !class.is_empty() {
        taken.insert(format!("{class}{BY_CLASS}persistentvolumeclaims"), one());
        if let Some(size) = size {
            taken.insert(format!("{class}{BY_CLASS}requests.storage"), size);
        }
    }
}

/// A pod that is over, or should be, takes nothing but its place in the count.
fn is_over(pod: &Value) -> bool {
    if TERMINAL.contains(&pod.text(&["status", "phase"])) {
        return true;
    }
    let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let (Some(grace), Ok(deleted)) = (grace, mini_api::time::parse(pod.text(&["metadata", "deletionTimestamp"])))
    else {
        return false;
    };
    // The time of deletion has the grace period in it already.
    grace >= 0 && jiff::Timestamp::now() > deleted
}

fn pod(pod: &Value, taken: &mut Amounts) {
    if is_over(pod) {
        return;
    }
    taken.insert("pods".to_owned(), one());
    let overhead = amounts(pod.pointer("/spec/overhead"));
    for (index, word) in ["requests", "limits"].into_iter().enumerate() {
        let mut total = pod_total(pod, index);
        for (name, amount) in &overhead {
            if word == "requests" || total.contains_key(name) {
                let sum = total.entry(name.clone()).or_insert(Quantity::ZERO);
                *sum = if sum.is_zero() { *amount } else { sum.plus(amount) };
            }
        }
        for (name, amount) in total {
            let measured = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if word == "requests" && (measured || name.starts_with("hugepages-")) {
                taken.insert(name.clone(), amount);
            }
            // Of extended resources only what is asked for is counted.
            if word == "requests" || measured {
                taken.insert(format!("{word}.{name}"), amount);
            }
        }
    }
}

/// What the containers of a pod must say, and do not, as the message lists it.
pub(super) fn unsaid(resource: &Resource, object: &Value, hard: &Amounts) -> String {
    // A pod that says what it takes as a whole says it for its containers.
    if resource.plural != "pods" || !resource.group.is_empty() || pod_whole(object).is_some() {
        return String::new();
    }
    let required = SAID.iter().filter(|name| hard.contains_key(**name));
    let mut lines = Vec::new();
    for name in required {
        let (section, of) = name.split_once('.').unwrap_or(("requests", name));
        let silent = |container: &&Value| {
            container.pointer(&format!("/resources/{section}")).and_then(|amounts| amounts.get(of)).is_none()
        };
        let containers = list(object, "/spec/containers").iter().chain(list(object, "/spec/initContainers"));
        let mut names: Vec<&str> = containers.filter(silent).map(|c| c.text(&["name"])).collect();
        names.sort_unstable();
        if !names.is_empty() {
            lines.push(format!("{name} for: {}", names.join(",")));
        }
    }
    lines.join("; ")
}

/// Whether a quota is about this object at all.
pub(super) fn in_scope(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let plain = list(quota, "/spec/scopes").iter().filter_map(Value::as_str).map(|scope| (scope, "Exists", &[][..]));
    let chosen = list(quota, "/spec/scopeSelector/matchExpressions")
        .iter()
        .map(|term| (term.text(&["scopeName"]), term.text(&["operator"]), list(term, "/values")));
    plain.chain(chosen).all(|(scope, operator, values)| match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod_scope(object, scope, operator, values),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            chosen_by(object.text(&["spec", "volumeAttributesClassName"]), operator, values)
        }
        _ => false,
    })
}

fn chosen_by(value: &str, operator: &str, values: &[Value]) -> bool {
    match operator {
        "In" => values.iter().any(|v| v == value),
        "NotIn" => !values.iter().any(|v| v == value),
        "DoesNotExist" => value.is_empty(),
        _ => !value.is_empty(),
    }
}

fn pod_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let deadline = pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|n| n >= 0);
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => chosen_by(pod.text(&["spec", "priorityClassName"]), operator, values),
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    mini_resources::qos_class(pod) == "BestEffort"
}

/// Whether an affinity term is about pods of other namespaces.
fn looks_elsewhere(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |field: &str| list(pod, &format!("/spec/affinity/{kind}/{field}")).to_vec();
        let preferred = terms("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = preferred.iter().filter_map(|t| t.get("podAffinityTerm").cloned());
        terms("requiredDuringSchedulingIgnoredDuringExecution").into_iter().chain(preferred).any(|term| {
            !list(&term, "/namespaces").is_empty() || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_resources::Registry;
    use serde_json::json;

    fn row(plural: &str) -> std::sync::Arc<Resource> {
        Registry::builtin().get("", "v1", plural).unwrap()
    }

    fn text(taken: &Amounts) -> Vec<String> {
        taken.iter().map(|(name, amount)| format!("{name}={amount}")).collect()
    }

    #[test]
    fn pods_take_what_they_ask_for_until_they_are_over() {
        let container = json!({"name": "c", "resources": {"requests": {"cpu": "100m", "example.com/gpu": "1"},
            "limits": {"cpu": "1", "example.com/gpu": "1"}}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
        assert_eq!(
            text(&of(&row("pods"), &pod)),
            ["count/pods=1", "cpu=100m", "limits.cpu=1", "pods=1", "requests.cpu=100m", "requests.example.com/gpu=1"]
        );
        let hard = amounts(Some(&json!({"limits.memory": "1Gi", "cpu": "1"})));
        assert_eq!(unsaid(&row("pods"), &pod, &hard), "limits.memory for: c");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(unsaid(&row("pods"), &pod, &hard), "");
        assert_eq!(of(&row("pods"), &pod)["requests.cpu"].to_string(), "2");
        pod["status"] = json!({"phase": "Failed"});
        assert_eq!(text(&of(&row("pods"), &pod)), ["count/pods=1"]);
    }

    #[test]
    fn services_and_claims() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}});
        assert_eq!(
            text(&of(&row("services"), &service)),
            ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"]
        );
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            text(&of(&row("persistentvolumeclaims"), &claim)),
            [
                "count/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
                "fast.storageclass.storage.k8s.io/requests.storage=1Gi",
                "persistentvolumeclaims=1",
                "requests.storage=1Gi",
            ]
        );
        assert_eq!(counted("count/jobs.batch"), Some(("jobs".to_owned(), "batch".to_owned())));
        assert_eq!(counted("limits.cpu"), Some(("pods".to_owned(), String::new())));
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |spec: Value| json!({"spec": spec});
        let pod =
            json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [{"name": "c"}]}});
        let fits = |spec| in_scope(&quota(spec), &row("pods"), &pod);
        assert!(fits(json!({})) && fits(json!({"scopes": ["Terminating", "BestEffort"]})));
        assert!(!fits(json!({"scopes": ["NotTerminating"]})));
        let term = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        assert!(fits(term("In", &["high"])) && !fits(term("NotIn", &["high"])) && fits(term("Exists", &[])));
        assert!(!in_scope(&quota(json!({"scopes": ["Terminating"]})), &row("services"), &json!({})));
        let mut whole = pod.clone();
        whole["spec"]["resources"] = json!({"limits": {"cpu": "1"}});
        assert!(!in_scope(&quota(json!({"scopes": ["BestEffort"]})), &row("pods"), &whole));
    }
}
