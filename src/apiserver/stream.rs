//! Requests that pass through to a kubelet, pod or service: log, exec, attach, portforward, proxy.
//!
//! Authorized like any other request; then the other side is found and bytes are copied. SPDY passes untouched, because
//! the far end (containerd's streaming server behind the kubelet) speaks it; WebSockets that the far end does not know
//! are translated here. No credential of the client is passed on.

pub(crate) mod kubelet;
mod logs;
mod proxy;
mod remote_command;
mod spdy;
mod upgrade;
mod websocket;

pub(crate) use kubelet::Kubelets;

use crate::{Body, Call};
use http::{Request, Response};
use mini_api::{Meta, Reason, Status, Value};

/// True for subresources that [`serve`] answers.
#[must_use]
pub fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Carries the request on. `request` still has its body and, from the wire, hyper's `OnUpgrade`.
///
/// # Errors
/// The object does not exist, or the other side cannot be reached.
pub async fn serve(call: &Call, request: Request<Body>) -> Result<Response<Body>, Status> {
    let known = call.resource.subresources.iter().any(|s| s.name == call.info.subresource);
    if !known && call.info.subresource != "proxy" {
        return Err(crate::handler::no_such_path());
    }
    match (call.resource.plural.as_str(), call.info.subresource.as_str()) {
        ("pods" | "services" | "nodes", "proxy") => proxy::serve(call, request).await,
        ("pods", "log") if request.method() == http::Method::GET => logs::serve(call).await,
        ("pods", "exec" | "attach" | "portforward") if matches!(request.method().as_str(), "GET" | "POST") => {
            may_create(call)?;
            let target = Target::find(call)?;
            upgrade::serve(call, request, &target).await
        }
        ("pods", "log" | "exec" | "attach" | "portforward") => Err(Status::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )),
        _ => Err(crate::handler::no_such_path()),
    }
}

/// A WebSocket starts with a GET, and yet gives what `create` gives: whoever may only read must not get a shell.
fn may_create(call: &Call) -> Result<(), Status> {
    if call.info.verb == "create" {
        return Ok(());
    }
    crate::handler::authorize_also(call, "create")
}

/// Where a stream of a pod ends.
struct Target {
    endpoint: kubelet::Endpoint,
    /// Path and query of the kubelet's request.
    path: String,
}

impl Target {
    fn find(call: &Call) -> Result<Self, Status> {
        let pod = pod(call)?;
        let (namespace, name) = (&call.info.namespace, &call.info.name);
        let mut query = Vec::new();
        let path = if call.info.subresource == "portforward" {
            query.extend(call.query.all("ports").map(|port| format!("port={}", encode(port))));
            format!("/portForward/{namespace}/{name}")
        } else {
            let container = container(&pod, call.query.text("container"))?;
            for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
                if flag(call, ours) {
                    query.push(format!("{theirs}=1"));
                }
            }
            if query.is_empty() || query.iter().all(|q| q == "tty=1") {
                return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
            }
            if call.info.subresource == "exec" {
                let command: Vec<_> = call.query.all("command").map(|c| format!("command={}", encode(c))).collect();
                if command.is_empty() {
                    return Err(Status::bad_request("you must specify at least one command for the container"));
                }
                query.extend(command);
            }
            format!("/{}/{namespace}/{name}/{container}", call.info.subresource)
        };
        let node = pod.text(&["spec", "nodeName"]);
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let endpoint = kubelet::Endpoint::of(&call.server, node)?;
        Ok(Self { endpoint, path: format!("{path}?{}", query.join("&")) })
    }
}

/// The flags of exec and attach. `stdout` and `stderr` of attach are on unless they are turned off.
fn flag(call: &Call, name: &str) -> bool {
    match call.query.get(name) {
        Some(_) => call.query.flag(name),
        None => call.info.subresource == "attach" && matches!(name, "stdout" | "stderr"),
    }
}

fn pod(call: &Call) -> Result<Value, Status> {
    let entry = call.server.store.snapshot().get(&call.key(&call.info.name)).ok_or_else(|| call.not_found())?;
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

/// The container that is meant: the only one, or the one that is named.
fn container(pod: &Value, name: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let items = pod.get("spec").and_then(|s| s.get(list)).and_then(Value::as_array).map(Vec::as_slice);
        items.unwrap_or_default().iter().map(|c| c.text(&["name"]).to_owned()).collect()
    };
    let containers = names("containers");
    let pod_name = pod.name();
    if !name.is_empty() {
        let all = [names("initContainers"), containers, names("ephemeralContainers")].concat();
        if all.iter().any(|c| c == name) {
            return Ok(name.to_owned());
        }
        return Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}")));
    }
    match containers.as_slice() {
        [one] => Ok(one.clone()),
        many => {
            let preferred = pod.text(&["metadata", "annotations", "kubectl.kubernetes.io/default-container"]);
            if many.iter().any(|c| c == preferred) {
                return Ok(preferred.to_owned());
            }
            let mut why =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", many.join(" "));
            let init = names("initContainers");
            if !init.is_empty() {
                why = format!("{why} or one of the init containers: [{}]", init.join(" "));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// Percent-encodes a query value.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_found_or_asked_for() {
        let pod = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|n| json!({"name": n})).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": list, "initContainers": [{"name": "i"}]}})
        };
        assert_eq!(container(&pod(&["a"]), "").unwrap(), "a");
        assert_eq!(container(&pod(&["a", "b"]), "b").unwrap(), "b");
        assert_eq!(container(&pod(&["a", "b"]), "i").unwrap(), "i");
        let error = container(&pod(&["a", "b"]), "").unwrap_err();
        assert_eq!(
            error.message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&pod(&["a"]), "x").unwrap_err().message, "container x is not valid for pod p");
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("a b&c=/ü"), "a%20b%26c%3D%2F%C3%BC");
    }
}
