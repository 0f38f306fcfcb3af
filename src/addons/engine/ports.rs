//! Ports of the machine that an addon's pods are to have. A program that listens there already would silently lose its
//! clients to the pod, so enabling says who it is instead.

use mini_sys::listeners::Listeners;
use serde_json::Value;

/// Why the host ports of these objects' pods cannot be had.
pub(super) fn taken(objects: &[Value]) -> Option<String> {
    let wanted: Vec<(&str, u16)> = objects.iter().flat_map(host_ports).collect();
    if wanted.is_empty() {
        return None;
    }
    let listeners = Listeners::read();
    wanted.into_iter().find_map(|(protocol, port)| {
        let who = listeners.on(protocol, port)?;
        Some(format!("port {port} is taken by {who}; stop that, or choose another port"))
    })
}

/// Protocol and number of the host ports of a workload's pods. Pods in the machine's own network open sockets like any
/// program, so theirs could be the very ones that are found.
fn host_ports(object: &Value) -> Vec<(&str, u16)> {
    let pod = object.pointer("/spec/template/spec").or_else(|| object.get("spec")).unwrap_or(&Value::Null);
    if pod["hostNetwork"] == true {
        return Vec::new();
    }
    let containers = pod["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports
        .filter_map(|port| {
            let number = port["hostPort"].as_u64().and_then(|number| u16::try_from(number).ok())?;
            Some((port["protocol"].as_str().unwrap_or("TCP"), number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_program_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let workload = |extra: Value| {
            let mut pod =
                json!({"containers": [{"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": port}]}]});
            pod["hostNetwork"] = extra;
            [
                json!({"kind": "Service", "spec": {"ports": [{"port": 80}]}}),
                json!({"spec": {"template": {"spec": pod}}}),
            ]
        };
        let said = taken(&workload(json!(false))).unwrap();
        assert!(said.starts_with(&format!("port {port} is taken by ")), "{said}");
        assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
        assert_eq!(taken(&workload(json!(true))), None);
        drop(socket);
        assert_eq!(taken(&workload(json!(false))), None);
    }
}
