//! What goes over the CNI door: environment, configuration, results and errors, for versions 0.3.0 to 1.0.0.

use crate::ports::Mapping;
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) const NEWEST: &str = "1.0.0";
const SUPPORTED: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", NEWEST];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Version,
}

/// The error codes of the specification that this plugin uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Code {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    Environment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// The first of the codes that are the plugin's own: the kernel refused.
    Kernel = 100,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn io(error: std::io::Error) -> Self {
        Self::new(Code::Io, error.to_string())
    }

    /// Prints the error as the specification asks.
    pub(super) fn report(&self, version: &str) -> ExitCode {
        let version = if version.is_empty() { NEWEST } else { version };
        println!("{}", json!({ "cniVersion": version, "code": self.code as u32, "msg": self.message }));
        ExitCode::FAILURE
    }
}

impl From<crate::link::Error> for Failure {
    fn from(error: crate::link::Error) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}

impl From<crate::ipam::Error> for Failure {
    fn from(error: crate::ipam::Error) -> Self {
        let code = match error {
            crate::ipam::Error::Exhausted(_) => Code::TryAgainLater,
            crate::ipam::Error::File { .. } => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

impl From<crate::nft::Error> for Failure {
    fn from(error: crate::nft::Error) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}

/// The configuration on standard input. Our own keys are optional here, because `loopback` has none of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NetConf {
    pub(super) cni_version: String,
    #[serde(rename = "type")]
    pub(super) type_: String,
    pub(super) bridge: String,
    pub(super) table: String,
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<Ipv4Net>,
    pub(super) leases: PathBuf,
    pub(super) mtu: Option<u32>,
    runtime_config: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Option<Vec<Mapping>>,
}

impl NetConf {
    /// The host ports asked for. Read only when they are needed: a DEL must not fail because of them.
    pub(super) fn ports(&self) -> Result<Vec<Mapping>, Failure> {
        let Some(config) = &self.runtime_config else { return Ok(Vec::new()) };
        let config: Option<RuntimeConfig> = serde_json::from_value(config.clone())
            .map_err(|error| Failure::new(Code::Decode, format!("the host ports cannot be read: {error}")))?;
        Ok(config.and_then(|config| config.port_mappings).unwrap_or_default())
    }

    pub(super) fn pods(&self) -> Result<Ipv4Net, Failure> {
        self.pod_cidr
            .ok_or_else(|| Failure::new(Code::InvalidConfig, "podCIDR is missing in the network configuration"))
    }
}

/// One call of the runtime.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) container: String,
    pub(super) interface: String,
    /// The path of the pod's network namespace; empty on a DEL of one that is gone.
    pub(super) netns: String,
    pub(super) config: NetConf,
}

impl Call {
    /// Reads environment and standard input.
    pub(super) fn read() -> Result<Self, Failure> {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(Failure::io)?;
        Self::parse(|name| std::env::var(name).unwrap_or_default(), &text)
    }

    fn parse(environment: impl Fn(&str) -> String, text: &[u8]) -> Result<Self, Failure> {
        let command = match environment("CNI_COMMAND").as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "VERSION" => Command::Version,
            other => return Err(Failure::new(Code::Environment, format!("CNI_COMMAND {other:?} is not known"))),
        };
        let config: NetConf = serde_json::from_slice(text).map_err(|error| {
            Failure::new(Code::Decode, format!("the network configuration cannot be read: {error}"))
        })?;
        let call = Self {
            command,
            container: environment("CNI_CONTAINERID"),
            interface: environment("CNI_IFNAME"),
            netns: environment("CNI_NETNS"),
            config,
        };
        if command == Command::Version {
            return Ok(call);
        }
        if !SUPPORTED.contains(&call.config.cni_version.as_str()) {
            let message = format!("CNI version {:?} is not supported", call.config.cni_version);
            return Err(Failure::new(Code::IncompatibleVersion, message));
        }
        for (name, value) in [("CNI_CONTAINERID", &call.container), ("CNI_IFNAME", &call.interface)] {
            if value.is_empty() {
                return Err(Failure::new(Code::Environment, format!("{name} is not set")));
            }
        }
        if call.netns.is_empty() && command != Command::Del {
            return Err(Failure::new(Code::Environment, "CNI_NETNS is not set"));
        }
        Ok(call)
    }
}

pub(super) fn versions(asked: &str) -> Value {
    let version = if SUPPORTED.contains(&asked) { asked } else { NEWEST };
    json!({ "cniVersion": version, "supportedVersions": SUPPORTED })
}

/// One interface of a result.
pub(super) struct Interface<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) sandbox: Option<&'a str>,
}

/// The result of an ADD; `address` belongs to the last interface.
pub(super) fn result(version: &str, interfaces: &[Interface<'_>], address: String, gateway: Option<String>) -> Value {
    let list: Vec<Value> = interfaces
        .iter()
        .map(|interface| {
            let mut value = json!({ "name": interface.name });
            if let Some([a, b, c, d, e, f]) = interface.mac {
                value["mac"] = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").into();
            }
            if let Some(sandbox) = interface.sandbox {
                value["sandbox"] = sandbox.into();
            }
            value
        })
        .collect();
    let mut ip = json!({ "address": address, "interface": interfaces.len().saturating_sub(1) });
    // Versions before 1.0 name the address family.
    if version.starts_with("0.") {
        ip["version"] = "4".into();
    }
    let mut result = json!({ "cniVersion": version, "interfaces": list, "dns": {} });
    if let Some(gateway) = gateway {
        result["routes"] = json!([{ "dst": "0.0.0.0/0", "gw": gateway }]);
        ip["gateway"] = gateway.into();
    }
    result["ips"] = json!([ip]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: &str, text: &str) -> Result<Call, Failure> {
        let environment = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => command,
                "CNI_CONTAINERID" => "c1",
                "CNI_IFNAME" => "eth0",
                _ => "",
            };
            value.to_owned()
        };
        Call::parse(environment, text.as_bytes())
    }

    #[test]
    fn calls_are_checked_before_anything_is_done() {
        let code = |command, text| parse(command, text).unwrap_err().code as u32;
        assert_eq!(code("FLY", "{}"), 4);
        assert_eq!(code("ADD", "{"), 6);
        assert_eq!(code("ADD", r#"{"cniVersion":"0.1.0"}"#), 1);
        assert_eq!(code("ADD", r#"{"cniVersion":"1.0.0"}"#), 4, "no namespace");
        assert!(parse("DEL", r#"{"cniVersion":"1.0.0"}"#).is_ok(), "the namespace may be gone");
        assert!(parse("VERSION", r#"{"cniVersion":"9.0.0"}"#).is_ok());
    }

    #[test]
    fn results_follow_the_version() {
        let interfaces = [Interface { name: "eth0", mac: Some([10, 88, 10, 1, 0, 5]), sandbox: Some("/run/netns/x") }];
        let new = result("1.0.0", &interfaces, "10.1.0.5/32".to_owned(), Some("10.1.0.1".to_owned()));
        let wanted = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "mac": "0a:58:0a:01:00:05", "sandbox": "/run/netns/x" }],
            "ips": [{ "address": "10.1.0.5/32", "interface": 0, "gateway": "10.1.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.1.0.1" }],
            "dns": {},
        });
        assert_eq!(new, wanted);
        let old = result("0.3.1", &interfaces, "10.1.0.5/32".to_owned(), None);
        assert_eq!(old["ips"][0]["version"], "4");
    }
}
