//! `get` and `list` of `metrics.k8s.io`: what nodes and pods use, asked of the kubelets when somebody asks.

use super::{get, list};
use crate::body::Body;
use crate::call::list_prefix;
use crate::negotiate::Output;
use crate::options::Filter;
use crate::stream::kubelet;
use crate::{Call, object};
use bytes::Bytes;
use http::{Response, StatusCode};
use mini_api::quantity::{Format, Quantity};
use mini_api::{Meta, Reason, Status, Value};
use mini_resources::Resource;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a kubelet may take to answer: one that has nothing to compare with measures for a second.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn run(call: &Call) -> Result<Response<Body>, Status> {
    let output = Output::negotiate(&call.headers, &call.query)?;
    let filter = Filter::parse(call)?;
    let measured = if call.resource.namespaced { pods(call).await? } else { nodes(call).await? };
    if call.info.verb == "list" {
        let chosen = measured.iter().filter(|object| filter.matches(object));
        let items = chosen.map(|object| Bytes::from(object.to_string())).collect();
        return list::answer(call, output, "", None, None, items);
    }
    let (resource, namespace, name) = (&call.resource, &call.info.namespace, &call.info.name);
    let Some(object) = measured.first() else {
        let name = if resource.namespaced { format!("{namespace}/{name}") } else { name.clone() };
        return Err(Status::not_found(&resource.group, &resource.singular, &name));
    };
    get::answer(call, output, StatusCode::OK, &Bytes::from(object.to_string()))
}

/// The objects of a kind that the path is about: one if it names one.
fn objects(call: &Call, plural: &str) -> Result<Vec<Value>, Status> {
    let row = call.server.registry.get("", "v1", plural).ok_or_else(crate::handler::no_such_path)?;
    let snapshot = call.server.store.snapshot();
    let within = !row.namespaced || !call.info.namespace.is_empty();
    if within && !call.info.name.is_empty() {
        let key = crate::call::object_key(&row, &call.info.namespace, &call.info.name);
        return snapshot.get(&key).iter().map(|entry| object::read(&row, entry)).collect();
    }
    let prefix = list_prefix(&row, &call.info.namespace);
    snapshot.range(&prefix, None).map(|entry| object::read(&row, &entry)).collect()
}

async fn nodes(call: &Call) -> Result<Vec<Value>, Status> {
    let nodes = objects(call, "nodes")?;
    let summaries = summaries(call, nodes.iter().map(|node| node.name().to_owned()).collect()).await?;
    let measured = nodes.iter().filter_map(|node| {
        let measured = summaries.get(node.name())?.get("node")?;
        let mut object = metrics(&call.resource, node, measured)?;
        object["usage"] = usage(measured)?;
        Some(object)
    });
    Ok(measured.collect())
}

async fn pods(call: &Call) -> Result<Vec<Value>, Status> {
    let mut pods = objects(call, "pods")?;
    pods.retain(|pod| pod.text(&["status", "phase"]) == "Running");
    let nodes = pods.iter().map(|pod| pod.text(&["spec", "nodeName"]).to_owned()).collect();
    Ok(of_pods(&call.resource, &pods, &summaries(call, nodes).await?))
}

fn of_pods(resource: &Resource, pods: &[Value], summaries: &BTreeMap<String, Value>) -> Vec<Value> {
    let measured: BTreeMap<&str, &Value> = summaries
        .values()
        .flat_map(|summary| items(summary, "pods"))
        .map(|pod| (pod.text(&["podRef", "uid"]), pod))
        .collect();
    let pods = pods.iter().filter_map(|pod| {
        let containers = items(measured.get(pod.text(&["metadata", "uid"]))?, "containers");
        let oldest = containers.iter().min_by_key(|container| container.text(&["cpu", "time"]))?;
        let mut object = metrics(resource, pod, oldest)?;
        let used = containers.iter().filter_map(|c| Some(json!({"name": c.text(&["name"]), "usage": usage(c)?})));
        object["containers"] = used.collect();
        Some(object)
    });
    pods.collect()
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// What the kubelets of these nodes measured. A node that does not answer is left out, unless none does.
async fn summaries(call: &Call, nodes: BTreeSet<String>) -> Result<BTreeMap<String, Value>, Status> {
    let asked = nodes.into_iter().map(|node| async move {
        let summary = kubelet::summary(&call.server, &node);
        let late = || Err(Status::internal(format!("the kubelet of {node} did not answer in time")));
        let answer = tokio::time::timeout(LIMIT, summary).await.unwrap_or_else(|_| late());
        (node, answer)
    });
    let mut found = BTreeMap::new();
    let mut failure = None;
    for (node, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(summary) => drop(found.insert(node, summary)),
            Err(status) => {
                tracing::debug!(node, status.message, "no metrics of a node");
                failure = Some(status.message);
            }
        }
    }
    match failure {
        Some(why) if found.is_empty() => Err(Status::new(Reason::ServiceUnavailable, why)),
        _ => Ok(found),
    }
}

/// The object without its usage; `object` is the node or pod, `measured` what tells when it was measured.
fn metrics(resource: &Resource, object: &Value, measured: &Value) -> Option<Value> {
    let mut metadata = json!({"name": object.name(), "creationTimestamp": mini_api::time::now()});
    if resource.namespaced {
        metadata["namespace"] = object.namespace().into();
    }
    if let Some(labels) = object.pointer("/metadata/labels") {
        metadata["labels"] = labels.clone();
    }
    let window = Duration::from_nanos(measured.pointer("/cpu/windowNanoSeconds")?.as_u64()?);
    Some(json!({
        "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata,
        "timestamp": measured.pointer("/cpu/time")?, "window": mini_api::go::duration(window),
    }))
}

fn usage(measured: &Value) -> Option<Value> {
    let number = |path: &str| measured.pointer(path).and_then(Value::as_i64);
    let cpu = Quantity::parse(&format!("{}n", number("/cpu/usageNanoCores")?)).ok()?;
    let memory = Quantity::from_value(number("/memory/workingSetBytes")?, Format::BinarySi);
    Some(json!({"cpu": cpu.to_string(), "memory": memory.to_string()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_the_one_that_was_measured() {
        let pod = |name: &str, uid: &str| {
            let metadata = json!({"name": name, "namespace": "n", "uid": uid, "labels": {"app": name}});
            json!({"metadata": metadata, "spec": {"nodeName": "m"}})
        };
        let container = |name: &str, time: &str, window: u64| {
            json!({"name": name, "memory": {"workingSetBytes": 2048},
                "cpu": {"time": time, "usageNanoCores": 1_000_000, "windowNanoSeconds": window}})
        };
        let containers =
            json!([container("a", "2026-01-02T03:04:06Z", 1), container("b", "2026-01-02T03:04:05Z", 2_500_000_000)]);
        let summary = json!({"pods": [{"podRef": {"uid": "u1", "name": "p"}, "containers": containers}]});
        let row = mini_resources::Registry::builtin().get("metrics.k8s.io", "v1", "pods").unwrap();
        let summaries = BTreeMap::from([("m".to_owned(), summary)]);
        // Another one had the name before.
        let found = of_pods(&row, &[pod("p", "u1"), pod("q", "u2")], &summaries);
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((found.name(), found.namespace(), &found["metadata"]["labels"]), ("p", "n", &json!({"app": "p"})));
        assert_eq!((&found["timestamp"], &found["window"]), (&json!("2026-01-02T03:04:05Z"), &json!("2.5s")));
        let used = json!({"cpu": "1m", "memory": "2Ki"});
        assert_eq!(found["containers"], json!([{"name": "a", "usage": used}, {"name": "b", "usage": used}]));
    }

    #[test]
    fn usage_is_in_quantities() {
        let measured = json!({"cpu": {"usageNanoCores": 1_234_567}, "memory": {"workingSetBytes": 5 * 1024 * 1000}});
        assert_eq!(usage(&measured), Some(json!({"cpu": "1234567n", "memory": "5000Ki"})));
        assert_eq!(usage(&json!({"cpu": {}, "memory": {"workingSetBytes": 1}})), None);
    }
}
