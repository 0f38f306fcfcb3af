//! Writes objects in Kubernetes' protobuf form: the other way of [`super::decode`], by the same table.
//!
//! What JSON does not say is not written: clients read an absent field as its zero. What it says is, zeros too.

use super::{BASE64, Field, Kind, MAGIC, MESSAGES, Message, Result, Shape, find};
use base64::Engine;
use serde_json::{Map, Value};

/// Whether objects of this kind have such a form.
#[must_use]
pub fn encodes(api_version: &str, kind: &str) -> bool {
    message(api_version, kind).is_some()
}

/// Encodes an object with its envelope.
///
/// # Errors
/// The kind is not known here, or a value does not fit its field.
pub fn encode(object: &Value) -> Result<Vec<u8>> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = message(api_version, kind)
        .ok_or_else(|| format!("no kind \"{kind}\" is registered for version \"{api_version}\""))?;
    let empty = Map::new();
    let mut raw = Vec::with_capacity(512);
    message.encode(object.as_object().unwrap_or(&empty), &mut raw)?;
    let mut type_meta = Vec::with_capacity(64);
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + 96);
    out.extend_from_slice(MAGIC);
    bytes(&mut out, 1, &type_meta);
    bytes(&mut out, 2, &raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    Ok(out)
}

/// A frame of a watch: its length in four bytes, and a bare `WatchEvent` around the whole object.
///
/// # Errors
/// As of [`encode`].
pub fn watch_frame(kind: &str, object: &Value) -> Result<Vec<u8>> {
    let object = encode(object)?;
    let mut raw = Vec::with_capacity(object.len() + 8);
    bytes(&mut raw, 1, &object);
    let mut event = Vec::with_capacity(raw.len() + 24);
    bytes(&mut event, 1, kind.as_bytes());
    bytes(&mut event, 2, &raw);
    let length = u32::try_from(event.len()).map_err(|e| e.to_string())?;
    Ok([&length.to_be_bytes()[..], &event].concat())
}

fn message(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or_default();
    let own = MESSAGES.get(format!("{package}.{version}.{kind}").as_str());
    own.or_else(|| MESSAGES.get(format!("meta.v1.{kind}").as_str()).filter(|_| api_version == "v1"))
}

impl Message {
    fn encode(&self, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<()> {
        for field in self.fields() {
            let Some(name) = field.name else {
                if let Kind::Message(package, name) = field.kind {
                    let mut inner = Vec::new();
                    find(package, name)?.encode(object, &mut inner)?;
                    if !inner.is_empty() {
                        bytes(out, field.number, &inner);
                    }
                }
                continue;
            };
            let Some(value) = object.get(name).filter(|value| !value.is_null()) else { continue };
            field.encode(value, out).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(())
    }
}

impl Field {
    fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match (self.shape, value) {
            (Shape::One, value) => self.kind.encode(self.number, value, out),
            (Shape::List, Value::Array(items)) => {
                items.iter().try_for_each(|item| self.kind.encode(self.number, item, out))
            }
            (Shape::Map, Value::Object(entries)) => {
                for (key, value) in entries {
                    let mut entry = Vec::new();
                    bytes(&mut entry, 1, key.as_bytes());
                    self.kind.encode(2, value, &mut entry)?;
                    bytes(out, self.number, &entry);
                }
                Ok(())
            }
            _ => Err("is neither list nor map".to_owned()),
        }
    }
}

impl Kind {
    fn encode(self, number: u64, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let text = || value.as_str().ok_or_else(|| format!("{value} is no string"));
        let int = || value.as_i64().ok_or_else(|| format!("{value} is no integer"));
        match self {
            Self::String => bytes(out, number, text()?.as_bytes()),
            Self::Bool => {
                integer(out, number, i64::from(value.as_bool().ok_or_else(|| format!("{value} is no boolean"))?));
            }
            Self::Integer => integer(out, number, int()?),
            Self::Double => {
                let value = value.as_f64().ok_or_else(|| format!("{value} is no number"))?;
                varint(out, number << 3 | 1);
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
            Self::Bytes => bytes(out, number, &BASE64.decode(text()?).map_err(|e| e.to_string())?),
            Self::Quantity => {
                let amount = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                message_of(out, number, |inner| bytes(inner, 1, amount.as_bytes()));
            }
            Self::IntOrString => message_of(out, number, |inner| match value {
                Value::String(text) => {
                    integer(inner, 1, 1);
                    integer(inner, 2, 0);
                    bytes(inner, 3, text.as_bytes());
                }
                other => {
                    integer(inner, 1, 0);
                    integer(inner, 2, other.as_i64().unwrap_or(0));
                    bytes(inner, 3, b"");
                }
            }),
            Self::Time | Self::MicroTime => {
                let at = mini_api::time::parse(text()?)?;
                // Of microseconds upstream keeps no more than it shows.
                let nanos = if matches!(self, Self::MicroTime) { at.subsec_nanosecond() / 1000 * 1000 } else { 0 };
                message_of(out, number, |inner| {
                    integer(inner, 1, at.as_second());
                    integer(inner, 2, i64::from(nanos));
                });
            }
            Self::Raw => message_of(out, number, |inner| bytes(inner, 1, value.to_string().as_bytes())),
            Self::Duration => {
                let nanos = duration(text()?)?;
                message_of(out, number, |inner| integer(inner, 1, nanos));
            }
            Self::Strings => {
                let items = value.as_array().ok_or_else(|| format!("{value} is no list"))?;
                let mut inner = Vec::new();
                for item in items {
                    bytes(&mut inner, 1, item.as_str().unwrap_or_default().as_bytes());
                }
                bytes(out, number, &inner);
            }
            Self::Message(package, name) => {
                let object = value.as_object().ok_or_else(|| format!("{value} is no object"))?;
                let mut inner = Vec::new();
                find(package, name)?.encode(object, &mut inner)?;
                bytes(out, number, &inner);
            }
        }
        Ok(())
    }
}

fn message_of(out: &mut Vec<u8>, number: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, number, &inner);
}

fn bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn integer(out: &mut Vec<u8>, number: u64, value: i64) {
    varint(out, number << 3);
    varint(out, u64::from_ne_bytes(value.to_ne_bytes()));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Nanoseconds of a duration in the words of Go: `1m30s`, `1.5h`.
fn duration(text: &str) -> Result<i64> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let wrong = || format!("{text:?} is no duration");
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let mut total = 0.0;
    while !rest.is_empty() && rest != "0" {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        total += number.parse::<f64>().map_err(|_| wrong())? * scale;
        rest = after;
    }
    Ok((sign * total) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::decode;
    use serde_json::json;

    /// An object through both ways; `null`s and empty lists do not come back.
    fn round(object: Value) {
        let encoded = encode(&object).unwrap();
        assert_eq!(decode(&encoded).unwrap(), object);
    }

    #[test]
    fn what_is_written_is_read_again() {
        round(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"a": "b"}, "generation": 3, "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:x": {}}}}]},
            "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}],
                    "resources": {"requests": {"cpu": "100m"}}, "readinessProbe": {"httpGet": {"port": "web", "path": "/"}},
                    "livenessProbe": {"tcpSocket": {"port": 80}}, "securityContext": {"runAsUser": 0}}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "s", "defaultMode": 420}}],
                "terminationGracePeriodSeconds": 0},
            "status": {"phase": "Running"}}));
        round(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AAE="}}));
        round(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 40}}));
        round(json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "revision": -1,
            "data": {"spec": {"a": [1, 2]}}}));
        round(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleList",
            "metadata": {"resourceVersion": "7", "continue": "x", "remainingItemCount": 2},
            "items": [{"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "resources": ["pods"]}]}]}));
        round(json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "NotFound",
            "message": "m", "code": 404, "details": {"name": "n", "kind": "pods", "causes": [{"field": "f"}]}}));
        round(json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "n"}}));
    }

    #[test]
    fn a_frame_says_how_long_it_is() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}});
        let frame = watch_frame("ADDED", &map).unwrap();
        let (length, event) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
        assert_eq!(&event[..7], b"\x0a\x05ADDED");
        let at = event.windows(4).position(|w| w == MAGIC).unwrap();
        assert_eq!(decode(&event[at..]).unwrap(), map);
    }

    #[test]
    fn every_stored_kind_has_a_form() {
        // Those groups' messages are in repositories of their own, and client-go's typed clients do not know them.
        let elsewhere = ["apiextensions.k8s.io", "apiregistration.k8s.io", "metrics.k8s.io"];
        let without: Vec<String> = crate::Registry::builtin()
            .iter()
            .filter(|r| !elsewhere.contains(&r.group.as_str()))
            .filter(|r| {
                !encodes(&r.api_version(), &r.kind)
                    || r.stored() && !encodes(&r.api_version(), &format!("{}List", r.kind))
            })
            .map(|r| r.kind.clone())
            .collect();
        assert_eq!(without, Vec::<String>::new());
        assert!(encode(&json!({"apiVersion": "example.com/v1", "kind": "Widget"})).is_err());
    }

    #[test]
    fn durations_in_gos_words() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!((duration("-1.5s"), duration("0")), (Ok(-1_500_000_000), Ok(0)));
        assert!(duration("1 day").is_err());
    }
}
