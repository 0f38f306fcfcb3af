//! `metadata.managedFields` on the way of a write: who is behind it, and what it makes theirs.
//!
//! The rules are `mini_api::apply`'s; here is what a request brings to them.

use crate::Call;
use bytes::Bytes;
use mini_api::apply::managers::{is_printable, is_reset};
use mini_api::apply::{Context, Element, Failure, Managers, Set, Versions, set::Filter};
use mini_api::{Meta, Status, Value, meta::object_mut, text};
use mini_resources::{ApplyNode, Registry, Resource};
use serde_json::Map;
use std::sync::LazyLock;

const FIELD: &str = "managedFields";
/// The longest name of a manager, in bytes.
pub(crate) const MANAGER_MAX: usize = 128;

/// Who owns what a write changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owners<'a> {
    /// The client, as of an update through this subresource; empty is the object itself.
    Update(&'a str),
    /// As the object that is written says.
    Given,
}

/// The name under which a request's changes are recorded.
pub(crate) fn manager(call: &Call) -> String {
    let named = call.query.text("fieldManager");
    if !named.is_empty() {
        return named.to_owned();
    }
    let agent = call.headers.get(http::header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()));
    match agent {
        Some(agent) => fitting_name(agent.split('/').next().unwrap_or_default()),
        // Components of this process have no agent but their name.
        None if call.inside => match call.user.name.strip_prefix("system:") {
            Some("apiserver") => "kube-apiserver".to_owned(),
            Some(node) if node.starts_with("node:") => "kubelet".to_owned(),
            Some(component) => fitting_name(component.rsplit(':').next().unwrap_or_default()),
            None => String::new(),
        },
        None => String::new(),
    }
}

/// What prints of a text, and no more of it than a manager's name holds.
fn fitting_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > MANAGER_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// Who owns the fields of a new object, before admission: the text of `managedFields`, or where the client sent some,
/// which are still to be validated, in the object.
pub(crate) fn on_create(call: &Call, object: &mut Value) -> Option<Bytes> {
    let sent = object.meta_mut().remove(FIELD);
    let managers = sent.as_ref().map(|sent| Managers::decode(sent).unwrap_or_default()).unwrap_or_default();
    let live = nothing_yet(&call.resource);
    let managers = with_context(call, "", |context| context.update(&live, object, managers));
    if sent.is_none() {
        return managers.write().map(Bytes::from);
    }
    put(object, managers);
    None
}

/// What an object is before there is one; its kind is enough for a conversion.
fn nothing_yet(resource: &Resource) -> Value {
    serde_json::json!({"apiVersion": resource.api_version(), "kind": resource.kind})
}

/// Who owns what is changed of an object whose owners are kept apart from it, before admission.
pub(crate) fn on_update_apart(call: &Call, subresource: &str, new: &Value, old: &Value, kept: &[u8]) -> Option<Bytes> {
    let managers = Managers::read(kept).unwrap_or_default();
    updated(call, subresource, new, old, managers).write().map(Bytes::from)
}

/// Puts owners back that were kept apart.
pub(crate) fn join(object: &mut Value, kept: Option<Bytes>) {
    if let Some(Ok(owners)) = kept.map(|kept| text::read(&kept)) {
        object.meta_mut().insert(FIELD.to_owned(), owners);
    }
}

/// Whether two texts of owners say the same but for the times.
pub(crate) fn same_but_times(a: Option<&Bytes>, b: Option<&Bytes>) -> bool {
    let read = |text: Option<&Bytes>| text.and_then(|text| text::read(text).ok()).unwrap_or_default();
    a == b || all_but_times(&read(a), &read(b))
}

/// Records who owns what is changed, before admission. An object without owners gets none.
pub(crate) fn on_update(call: &Call, subresource: &str, new: &mut Value, old: &mut Value) {
    let sent = new.meta_mut().remove(FIELD).unwrap_or_default();
    // Owners are not compared.
    let stored = old.meta_mut().remove(FIELD);
    on_update_of(call, subresource, new, old, &sent, stored.as_ref().unwrap_or(&Value::Null));
    if let Some(stored) = stored {
        old.meta_mut().insert(FIELD.to_owned(), stored);
    }
}

fn on_update_of(call: &Call, subresource: &str, new: &mut Value, old: &Value, sent: &Value, stored: &Value) {
    let kept = || Managers::decode(stored).unwrap_or_default();
    let managers = if !subresource.is_empty() {
        kept()
    } else if is_reset(sent) {
        Managers::default()
    } else {
        // Clients that do not know the field must not lose it.
        Managers::decode(sent).ok().filter(|sent| !sent.is_empty()).unwrap_or_else(kept)
    };
    let managers = updated(call, subresource, new, old, managers);
    put(new, managers);
}

fn updated(call: &Call, subresource: &str, new: &Value, old: &Value, managers: Managers) -> Managers {
    // As upstream, where a Scale has the owners of the replicas and no others, and an object without owners gets none.
    let scaled = |managers: &Managers| managers.iter().any(|entry| entry.set.has(&replicas(&call.resource)));
    if managers.is_empty() || subresource == "scale" && !scaled(&managers) {
        return managers;
    }
    with_context(call, subresource, |context| context.update(old, new, managers))
}

/// What `config` makes of `old`, with its owners; of nothing where there is no object yet.
///
/// # Errors
/// 409 where it is in conflict with others, 500 where it does not fit the schema, both in upstream's words.
pub(crate) fn apply(
    call: &Call,
    subresource: &str,
    old: Option<&Value>,
    config: &Value,
    force: bool,
) -> Result<Value, Status> {
    let resource = &*call.resource;
    let mut live = match old {
        Some(old) => old.clone(),
        None => nothing_yet(resource),
    };
    let managed = old.and_then(|_| live.meta_mut().remove(FIELD)).unwrap_or_default();
    let managers = Managers::decode(&managed)
        .map_err(|why| Status::new(mini_api::Reason::Unknown, format!("failed to decode managed fields: {why}")))?;
    let applied = with_context(call, subresource, |context| context.apply(&live, config, &managers, force));
    let applied = applied.map_err(|failure: Failure| failure.status(&named(config)))?;
    let mut object = applied.object;
    put(&mut object, applied.managers);
    Ok(object)
}

/// `default/web; apps/v1, Kind=Deployment`.
pub(crate) fn named(config: &Value) -> String {
    format!("{}/{}; {}", config.namespace(), config.name(), kind_of(config))
}

/// `apps/v1, Kind=Deployment`, and `/v1, Kind=Pod`: upstream's GroupVersionKind in words.
pub(crate) fn kind_of(object: &Value) -> String {
    let (api_version, kind) = (object.text(&["apiVersion"]), object.text(&["kind"]));
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

/// Where nothing but the times of owners differs from the old object, they stay too.
pub(crate) fn keep_times(new: &mut Value, old: &Value) {
    let (now, before) = (of(new), of(old));
    if now == before || !all_but_times(now, before) {
        return;
    }
    if equal_but(new, old, "metadata") && equal_but(metadata(new), metadata(old), FIELD) {
        let before = before.clone();
        new.meta_mut().insert(FIELD.to_owned(), before);
    }
}

fn all_but_times(now: &Value, before: &Value) -> bool {
    let (Some(now), Some(before)) = (now.as_array(), before.as_array()) else { return false };
    now.len() == before.len() && now.iter().zip(before).all(|(a, b)| equal_but(a, b, "time"))
}

fn equal_but(a: &Value, b: &Value, name: &str) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let rest = |map: &'_ Map<String, Value>| map.len() - usize::from(map.contains_key(name));
    rest(a) == rest(b) && a.iter().all(|(key, value)| key == name || b.get(key) == Some(value))
}

fn metadata(object: &Value) -> &Value {
    object.get("metadata").unwrap_or(&Value::Null)
}

fn of(object: &Value) -> &Value {
    metadata(object).get(FIELD).unwrap_or(&Value::Null)
}

fn put(object: &mut Value, managers: Managers) {
    if let Some(entries) = managers.encode() {
        object.meta_mut().insert(FIELD.to_owned(), entries);
    }
}

fn with_context<T>(call: &Call, subresource: &str, run: impl FnOnce(&Context<'_, ApplyNode>) -> T) -> T {
    let resource = &*call.resource;
    run(&Context {
        schema: resource.apply_schema(),
        api_version: &resource.api_version(),
        manager: &manager(call),
        subresource,
        now: &mini_api::time::now(),
        filter: filter(resource, subresource),
        versions: &Rows { registry: &call.server.registry.current(), resource },
    })
}

/// The rows that share the storage of a resource.
struct Rows<'a> {
    registry: &'a Registry,
    resource: &'a Resource,
}

impl Rows<'_> {
    fn row(&self, api_version: &str) -> Option<&Resource> {
        let mut rows = self.registry.iter().map(|row| &**row);
        rows.find(|row| row.storage == self.resource.storage && row.api_version() == api_version)
    }
}

impl Versions<ApplyNode> for Rows<'_> {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, ApplyNode)> {
        let (from, to) = (self.row(object.text(&["apiVersion"]))?, self.row(api_version)?);
        let mut object = object.clone();
        from.to_stored(&mut object);
        to.read_stored(&mut object).ok()?;
        object_mut(&mut object).insert("apiVersion".to_owned(), api_version.into());
        Some((object, to.apply_schema()))
    }
}

/// Fields that a request does not change, so that it cannot own them: upstream's `GetResetFields`.
fn filter(resource: &Resource, subresource: &str) -> Filter<'static> {
    static NOTHING: LazyLock<Set> = LazyLock::new(Set::default);
    static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["status"]]));
    static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"]]));
    static DEPLOYMENT: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"], &["metadata", "labels"]]));
    static METADATA: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"], &["metadata"]]));
    static SIGNING: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"], &["status"]]));
    static SIGNED: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"], &["status", "conditions"]]));
    static POD: LazyLock<Set> =
        LazyLock::new(|| Set::of(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]));
    static APPROVAL: LazyLock<Set> = LazyLock::new(|| Set::of(&[&["spec"], &["status", "certificate"]]));
    Filter::Without(match (subresource, resource.kind.as_str()) {
        // Who scales a custom kind changes what its definition says, which need not be this.
        ("scale", _) if !scales_replicas(resource) => &NOTHING,
        ("scale", _) => return Filter::Only(&[&["spec", "replicas"]]),
        ("ephemeralcontainers", _) => return Filter::Only(&[&["spec", "ephemeralContainers"]]),
        ("resize", _) => {
            return Filter::Only(&[
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]);
        }
        ("status", _) if resource.custom.is_some() => &METADATA,
        ("status", "VolumeAttachment" | "FlowSchema" | "PriorityLevelConfiguration" | "ResourceClaim") => &METADATA,
        ("status", "CertificateSigningRequest") => &SIGNED,
        ("status", "Pod") => &POD,
        ("status", "Deployment") => &DEPLOYMENT,
        ("status", _) => &SPEC,
        ("approval", _) => &APPROVAL,
        ("", "CertificateSigningRequest") => &SIGNING,
        _ if resource.subresource("status").is_some() => &STATUS,
        _ => &NOTHING,
    })
}

/// Where a Scale of the kind finds the replicas.
fn replicas(resource: &Resource) -> Vec<Element> {
    match resource.custom.as_ref().and_then(|kind| kind.scale.as_ref()) {
        Some(scale) => scale.desired_path().map(Element::field).collect(),
        None => vec![Element::field("spec"), Element::field("replicas")],
    }
}

/// Whether `spec.replicas` is what a Scale of the kind is about.
fn scales_replicas(resource: &Resource) -> bool {
    replicas(resource) == [Element::field("spec"), Element::field("replicas")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: &str, data: &str| json!({"metadata": {"name": "a", "managedFields": [{"manager": "m", "time": time}]}, "data": data});
        let old = object("1", "x");
        let mut new = object("2", "x");
        keep_times(&mut new, &old);
        assert_eq!(new, old);
        let mut new = object("2", "y");
        keep_times(&mut new, &old);
        assert_eq!(new, object("2", "y"));
        let mut new = old.clone();
        new["metadata"]["managedFields"] = json!([{"manager": "n", "time": "1"}]);
        keep_times(&mut new, &old);
        assert_eq!(new["metadata"]["managedFields"][0]["manager"], "n");
    }

    #[test]
    fn objects_are_named_as_upstream_does() {
        let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
        assert_eq!(named(&config), "/a; /v1, Kind=Pod");
    }
}
