//! Where a proxied request goes: `[scheme:]name[:port]` of a pod or a service.

use crate::{ApiServer, Call};
use mini_api::{Meta, Reason, Status, Value};
use std::net::{IpAddr, SocketAddr};

/// The parts of `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) tls: bool,
    pub(super) name: &'a str,
    pub(super) port: &'a str,
}

impl<'a> Name<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { tls: scheme == "https", name, port })
    }
}

pub(super) fn port(text: &str) -> Result<u16, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("{text:?} is no port")))
}

fn read(server: &ApiServer, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let entry = server.store.snapshot().get(&format!("/registry/{plural}/{namespace}/{name}"));
    let entry = entry.ok_or_else(|| Status::not_found("", plural, name))?;
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn pod_address(call: &Call, name: &Name<'_>) -> Result<SocketAddr, Status> {
    let pod = read(&call.server, "pods", &call.info.namespace, name.name)?;
    let containers = items(&pod, "/spec/containers").iter();
    let declared = containers.flat_map(|c| items(c, "/ports")).find_map(|p| {
        let of_port = name.port.is_empty() || p.text(&["name"]) == name.port;
        p.get("containerPort").filter(|_| of_port).and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
    });
    let port = match declared {
        Some(declared) => declared,
        None if name.port.is_empty() => 80,
        None => port(name.port)?,
    };
    Ok(SocketAddr::new(proxyable(pod.text(&["status", "podIP"]))?, port))
}

/// The API server is no way to the machine's own loopback or to the cloud's metadata.
pub(super) fn proxyable(text: &str) -> Result<IpAddr, Status> {
    let refused = |why: &str| Status::bad_request(format!("address not allowed: {why}"));
    let address: IpAddr = text.parse().map_err(|_| refused("the pod has none yet"))?;
    // `::ffff:127.0.0.1` leads where `127.0.0.1` does.
    let address = address.to_canonical();
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        return Err(refused("it is not one of a pod"));
    }
    Ok(address)
}

pub(super) fn service_address(call: &Call, name: &Name<'_>) -> Result<SocketAddr, Status> {
    let namespace = &call.info.namespace;
    let service = read(&call.server, "services", namespace, name.name)?;
    let ports = items(&service, "/spec/ports");
    let wanted = match (ports, name.port) {
        ([one], "") => Some(one),
        (_, port) => ports.iter().find(|p| {
            p.text(&["name"]) == port || p.get("port").and_then(Value::as_u64).is_some_and(|n| n.to_string() == port)
        }),
    };
    let unavailable = |why: String| Status::new(Reason::ServiceUnavailable, why);
    let Some(wanted) = wanted else {
        let why = format!("no service port {:?} found for service {:?}", name.port, name.name);
        return Err(unavailable(why));
    };
    let prefix = format!("/registry/endpointslices.discovery.k8s.io/{namespace}/");
    let mut addresses = Vec::new();
    for entry in call.server.store.snapshot().range(&prefix, None) {
        let Ok(slice) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        if slice.text(&["metadata", "labels", "kubernetes.io/service-name"]) != name.name {
            continue;
        }
        let port = items(&slice, "/ports").iter().find(|p| p.text(&["name"]) == wanted.text(&["name"]));
        let Some(port) = port.and_then(|p| p.get("port")?.as_u64()).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in items(&slice, "/endpoints") {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let address = items(endpoint, "/addresses").first().and_then(Value::as_str);
            if let Some(address) = address.filter(|_| ready) {
                addresses.push((address.to_owned(), port));
            }
        }
    }
    let chosen = addresses.get(rand::random_range(0..addresses.len().max(1)));
    let (address, port) =
        chosen.ok_or_else(|| unavailable(format!("no endpoints available for service {:?}", name.name)))?;
    Ok(SocketAddr::new(proxyable(address)?, *port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_say_more() {
        let name = |tls, name, port| Some(Name { tls, name, port });
        assert_eq!(Name::parse("a"), name(false, "a", ""));
        assert_eq!(Name::parse("a:80"), name(false, "a", "80"));
        assert_eq!(Name::parse("https:a:web"), name(true, "a", "web"));
        assert_eq!(Name::parse("https:a:"), name(true, "a", ""));
        assert_eq!(Name::parse("ftp:a:1"), None);
        assert_eq!(Name::parse(":80"), None);
    }

    #[test]
    fn any_name_is_answered() {
        mini_fuzz::run(&[b"https:a:80", b"a"], &[":", "http", "::1", "::ffff:127.0.0.1"], |input| {
            let text = String::from_utf8_lossy(input);
            let name = Name::parse(&text);
            if let Some(name) = &name {
                assert!(!name.name.contains(':') && !name.port.contains(':'), "{name:?}");
            }
            (name.is_some(), port(&text).is_ok(), proxyable(&text).is_ok())
        });
    }

    #[test]
    fn only_addresses_of_pods() {
        assert!(proxyable("10.1.0.5").is_ok());
        for bad in ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "", "::ffff:127.0.0.1", "::ffff:169.254.169.254"]
        {
            assert!(proxyable(bad).is_err(), "{bad}");
        }
    }
}
