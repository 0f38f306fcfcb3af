//! Host ports: what the runtime asks for, and the map elements that serve it.

use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// One entry of the `portMappings` capability; also how a lease remembers it. containerd writes Go's field names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mapping {
    #[serde(alias = "HostPort")]
    pub(crate) host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub(crate) container_port: u16,
    #[serde(alias = "Protocol", default = "tcp")]
    pub(crate) protocol: String,
    #[serde(alias = "HostIP", default, rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub(crate) host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

impl Mapping {
    /// The name nftables knows the protocol by; `None` for one that cannot be mapped.
    fn l4(&self) -> Option<&'static str> {
        ["tcp", "udp", "sctp"].into_iter().find(|name| self.protocol.eq_ignore_ascii_case(name))
    }

    /// The map and element for a pod at `address`; `None` for a mapping of another address family.
    pub(crate) fn element(&self, address: Ipv4Addr) -> Option<(&'static str, String)> {
        let (l4, from, to) = (self.l4()?, self.host_port, self.container_port);
        match self.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => Some(("hostports", format!("{l4} . {from} : {address} . {to}"))),
            ip => {
                let ip: Ipv4Addr = ip.parse().ok()?;
                Some(("hostports-ip", format!("{l4} . {ip} . {from} : {address} . {to}")))
            }
        }
    }
}

/// Mappings that name a port; CNI passes port 0 for "none".
pub(crate) fn wanted(mappings: &[Mapping]) -> Vec<Mapping> {
    mappings.iter().filter(|mapping| mapping.host_port != 0).cloned().collect()
}

/// Text that opens the ports.
pub(crate) fn open(table: &str, address: Ipv4Addr, mappings: &[Mapping]) -> String {
    let mut text = String::new();
    for (map, element) in mappings.iter().filter_map(|mapping| mapping.element(address)) {
        let _ = writeln!(text, "add element ip {table} {map} {{ {element} }}");
    }
    if !text.is_empty() {
        let _ = writeln!(text, "add element ip {table} hairpin {{ {address} . {address} }}");
    }
    text
}

/// Texts that close the ports, each to be applied by itself: the addition before the deletion makes it succeed when the
/// element is gone already, and fail without harm when the port has passed to another pod.
pub(crate) fn close(table: &str, address: Ipv4Addr, mappings: &[Mapping]) -> Vec<String> {
    let mut elements: Vec<_> = mappings.iter().filter_map(|mapping| mapping.element(address)).collect();
    if !elements.is_empty() {
        elements.push(("hairpin", format!("{address} . {address}")));
    }
    let text = |(map, element): (&str, String)| {
        format!("add element ip {table} {map} {{ {element} }}\ndelete element ip {table} {map} {{ {element} }}\n")
    };
    elements.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(protocol: &str, host_ip: &str) -> Mapping {
        Mapping { host_port: 8080, container_port: 80, protocol: protocol.to_owned(), host_ip: host_ip.to_owned() }
    }

    #[test]
    fn elements_follow_protocol_and_host_address() {
        let pod = Ipv4Addr::new(10, 1, 0, 5);
        assert_eq!(mapping("TCP", "").element(pod), Some(("hostports", "tcp . 8080 : 10.1.0.5 . 80".to_owned())));
        let local = mapping("udp", "127.0.0.1").element(pod);
        assert_eq!(local, Some(("hostports-ip", "udp . 127.0.0.1 . 8080 : 10.1.0.5 . 80".to_owned())));
        assert_eq!(mapping("tcp", "fd00::1").element(pod), None);
        assert_eq!(mapping("icmp", "").element(pod), None);
    }

    #[test]
    fn a_mapping_reads_what_the_runtime_writes() {
        for text in [
            r#"{"hostPort":54323,"containerPort":8080,"protocol":"udp","hostIP":"127.0.0.1"}"#,
            r#"{"HostPort":54323,"ContainerPort":8080,"Protocol":"udp","HostIP":"127.0.0.1"}"#,
        ] {
            let mapping: Mapping = serde_json::from_str(text).unwrap();
            assert_eq!((mapping.host_port, mapping.container_port), (54323, 8080));
            assert_eq!((mapping.protocol.as_str(), mapping.host_ip.as_str()), ("udp", "127.0.0.1"));
        }
    }
}
