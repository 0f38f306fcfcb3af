//! Event, in the words of the core group and in those of `events.k8s.io`. Both are one object in storage, kept in the
//! core group's words.

use crate::check::{At, Errors};
use crate::columns::{self, Column, int, since, text_or};
use crate::resource::Hooks;
use jiff::Timestamp;
use mini_api::meta::object_mut;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;

pub(crate) const CORE: Hooks = Hooks {
    validate,
    columns: COLUMNS,
    cells,
    field: |v, path| match path {
        "source" => Some(match v.text(&["source", "component"]) {
            "" => v.text(&["reportingComponent"]).to_owned(),
            component => component.to_owned(),
        }),
        _ => None,
    },
    ..Hooks::NONE
};

pub(crate) const EVENTS: Hooks = Hooks {
    validate: |v, errors| {
        let mut core = v.clone();
        to_core(&mut core);
        let mut found = Vec::new();
        validate(&core, &mut found);
        errors.append(&mut found);
        strict(v, errors);
    },
    validate_update: |new, old, _, errors| {
        let (new, old) = (At::root(new), At::root(old));
        for field in [
            "regarding",
            "reason",
            "note",
            "type",
            "eventTime",
            "action",
            "related",
            "reportingController",
            "reportingInstance",
        ] {
            new.get(field).immutable(&old.get(field), errors);
        }
    },
    columns: COLUMNS,
    cells: |v, now| {
        let mut core = v.clone();
        to_core(&mut core);
        cells(&core, now)
    },
    to_stored: Some(to_core),
    from_stored: Some(from_core),
    ..Hooks::NONE
};

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "Time since it last happened."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word."),
    Column::text("Object", "What it happened to."),
    Column::wide("Subobject", "Part of the object it happened to."),
    Column::wide("Source", "Who reports it."),
    Column::text("Message", "What happened, in a sentence."),
    Column::wide("First Seen", "Time since it first happened."),
    Column::wide("Count", "How often it happened."),
    Column::new("Name", "string", "name", "Name of the event.", 1),
];

/// Field of the core group, field of `events.k8s.io`.
const WORDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn to_core(v: &mut Value) {
    let map = object_mut(v);
    for (core, events) in WORDS {
        if let Some(value) = map.remove(events) {
            map.insert(core.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), "v1".into());
}

fn from_core(v: &mut Value) {
    let map = object_mut(v);
    for (core, events) in WORDS {
        if let Some(value) = map.remove(core) {
            map.insert(events.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), "events.k8s.io/v1".into());
}

fn cells(v: &Value, now: Timestamp) -> Vec<Value> {
    let time = |path: &[&str], otherwise: &str| match v.text(path) {
        "" => otherwise.to_owned(),
        at => since(at, now),
    };
    let first = time(&["firstTimestamp"], &time(&["eventTime"], columns::UNKNOWN));
    let mut last = time(&["lastTimestamp"], &first);
    let mut count = int(v, &["count"]).max(1);
    if v.get("series").is_some_and(Value::is_object) {
        last = time(&["series", "lastObservedTime"], columns::UNKNOWN);
        count = int(v, &["series", "count"]);
    }
    let kind = v.text(&["involvedObject", "kind"]).to_lowercase();
    let object = match v.text(&["involvedObject", "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let either =
        |a: &[&str], b: &[&str]| if v.text(a).is_empty() { v.text(b).to_owned() } else { v.text(a).to_owned() };
    let component = either(&["source", "component"], &["reportingComponent"]);
    let source = match either(&["source", "host"], &["reportingInstance"]) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    };
    vec![
        last.into(),
        text_or(v, &["type"], ""),
        text_or(v, &["reason"], ""),
        object.into(),
        text_or(v, &["involvedObject", "fieldPath"], ""),
        source.into(),
        v.text(&["message"]).trim().into(),
        first.into(),
        count.into(),
        columns::name(v),
    ]
}

fn validate(v: &Value, errors: &mut Errors) {
    let root = At::root(v);
    let (object, namespace) = (root.get("involvedObject").get("namespace"), v.namespace());
    let mismatch = |at: &At<'_>| FieldError::invalid(&at.path, at.text(), "does not match event.namespace");
    if root.get("eventTime").is_empty() {
        let fits = match object.text() {
            // Events about what has no namespace live in the default one.
            "" => matches!(namespace, "" | "default"),
            other => other == namespace,
        };
        if !fits {
            errors.push(mismatch(&object));
        }
        return;
    }
    if object.is_empty() && !matches!(namespace, "default" | "kube-system") {
        errors.push(mismatch(&object));
    }
    let controller = root.get("reportingComponent");
    let path = mini_api::FieldPath::new("reportingController");
    if controller.is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    for message in names::is_qualified_name(controller.text()) {
        errors.push(FieldError::invalid(&path, controller.text(), message));
    }
    for (field, max, required) in
        [("reportingInstance", 128, true), ("action", 128, true), ("reason", 128, true), ("message", 1024, false)]
    {
        let at = root.get(field);
        if required {
            at.must_be_set(errors);
        }
        if at.text().len() > max {
            errors.push(FieldError::invalid(&at.path, "", format!("can have at most {max} characters")));
        }
    }
}

/// The newer group accepts only events in its own words.
fn strict(v: &Value, errors: &mut Errors) {
    let root = At::root(v);
    root.get("eventTime").must_be_set(errors);
    let kind = root.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        errors.push(FieldError::invalid(&kind.path, "", format!("has invalid value: {}", kind.text())));
    }
    let series = root.get("series");
    if series.is_set() {
        if series.get("count").int().unwrap_or(0) < 2 {
            errors.push(FieldError::invalid(&series.get("count").path, "", "should be at least 2"));
        }
        series.get("lastObservedTime").must_be_set(errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_groups_tell_the_same_event() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "d"}, "message": "m", "reason": "R",
            "source": {"component": "kubelet", "host": "n"}, "count": 3, "reportingComponent": "kubelet",
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z", "type": "Normal"});
        let mut v = core.clone();
        from_core(&mut v);
        assert_eq!(v["apiVersion"], "events.k8s.io/v1");
        assert_eq!((&v["note"], &v["regarding"]["name"], &v["deprecatedCount"]), (&json!("m"), &json!("p"), &json!(3)));
        let now = "2026-01-01T00:02:00Z".parse().unwrap();
        let want = ["60s", "Normal", "R", "pod/p", "", "kubelet, n", "m", "2m"].map(Value::from);
        assert_eq!((EVENTS.cells)(&v, now)[..8], want);
        to_core(&mut v);
        assert_eq!(v, core);
        assert_eq!((CORE.cells)(&v, now)[8], 3);
    }

    #[test]
    fn an_event_lives_beside_its_object() {
        let mut errors = Vec::new();
        validate(&json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}), &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"
        );
        errors.clear();
        validate(&json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}), &mut errors);
        assert_eq!(errors, []);
    }
}
