//! The defaults engine: a table of paths and the values they get when their author left them out.
//!
//! A path walks fields by `.`, every element of a list by `[]`, every value of a map by `{}`, and any of several
//! fields by `|`: `spec.containers|initContainers[].ports[].protocol`. A field is set only where its parent is there
//! and it is absent, null or as good as absent, so a table that also wants the parent lists the parent, as [`Default::Map`], before it.

use serde_json::{Map, Value};

/// Lines of path and value.
pub type Table = &'static [(&'static str, Default)];

/// The value of an absent field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// Also where the field is an empty string: most of upstream's strings cannot tell the two apart.
    Str(&'static str),
    Int(i64),
    /// Also where the field is zero.
    NonZero(i64),
    Bool(bool),
    /// An empty map, to hold defaults of its own.
    Map,
}

impl Default {
    fn value(self) -> Value {
        match self {
            Self::Str(s) => s.into(),
            Self::Int(i) | Self::NonZero(i) => i.into(),
            Self::Bool(b) => b.into(),
            Self::Map => Value::Object(Map::new()),
        }
    }
}

/// Applies the lines of a table in their order.
pub fn apply(table: &[(&str, Default)], value: &mut Value) {
    for (path, default) in table {
        set(value, path, *default);
    }
}

/// Applies a table to each value at `path`, such as that of a pod's spec at `spec.template.spec`.
pub fn apply_at(path: &str, table: &[(&str, Default)], value: &mut Value) {
    each(value, path, &mut |v| apply(table, v));
}

fn set(value: &mut Value, path: &str, default: Default) {
    let (parents, names) = path.rsplit_once('.').unwrap_or(("", path));
    each(value, parents, &mut |parent| {
        let Value::Object(map) = parent else { return };
        for name in names.split('|') {
            let unset = match map.get(name) {
                None | Some(Value::Null) => true,
                Some(Value::String(s)) => s.is_empty() && matches!(default, Default::Str(_)),
                Some(Value::Number(n)) => n.as_i64() == Some(0) && matches!(default, Default::NonZero(_)),
                Some(_) => false,
            };
            if unset {
                map.insert(name.to_owned(), default.value());
            }
        }
    });
}

/// Calls `visit` with every value that is there at `path`.
pub fn each(value: &mut Value, path: &str, visit: &mut dyn FnMut(&mut Value)) {
    if path.is_empty() {
        return visit(value);
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let (names, inside) = match (step.strip_suffix("[]"), step.strip_suffix("{}")) {
        (Some(names), _) => (names, Some('[')),
        (_, Some(names)) => (names, Some('{')),
        _ => (step, None),
    };
    for name in names.split('|') {
        match (value.get_mut(name), inside) {
            (Some(Value::Array(items)), Some('[')) => items.iter_mut().for_each(|v| each(v, rest, visit)),
            (Some(Value::Object(items)), Some('{')) => items.values_mut().for_each(|v| each(v, rest, visit)),
            (Some(field), None) if !field.is_null() => each(field, rest, visit),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_fields_are_filled() {
        let table = [
            ("spec", Default::Map),
            ("spec.restartPolicy", Default::Str("Always")),
            ("spec.containers|initContainers[].ports[].protocol", Default::Str("TCP")),
            ("spec.containers[].livenessProbe|readinessProbe.periodSeconds", Default::Int(10)),
            ("spec.mounts{}.ro", Default::Bool(false)),
        ];
        let mut pod = json!({"spec": {
            "restartPolicy": null,
            "containers": [{"ports": [{}, {"protocol": "UDP"}], "livenessProbe": {}, "readinessProbe": {"periodSeconds": 1}}, {}],
            "initContainers": [{"ports": [{}]}],
            "mounts": {"a": {}, "b": {"ro": true}},
        }});
        apply(&table, &mut pod);
        let wanted = json!({"spec": {
            "restartPolicy": "Always",
            "containers": [{"ports": [{"protocol": "TCP"}, {"protocol": "UDP"}], "livenessProbe": {"periodSeconds": 10},
                            "readinessProbe": {"periodSeconds": 1}}, {}],
            "initContainers": [{"ports": [{"protocol": "TCP"}]}],
            "mounts": {"a": {"ro": false}, "b": {"ro": true}},
        }});
        assert_eq!(pod, wanted);
        apply(&table, &mut pod);
        assert_eq!(pod, wanted);
    }

    #[test]
    fn empty_strings_and_zeros_count_as_absent_where_a_line_says_so() {
        let mut value = json!({"s": "", "n": 0, "i": 0});
        apply(&[("s", Default::Str("x")), ("n", Default::NonZero(3)), ("i", Default::Int(1))], &mut value);
        assert_eq!(value, json!({"s": "x", "n": 3, "i": 0}));
    }

    #[test]
    fn parents_are_made_only_when_listed() {
        let mut value = json!({});
        apply(&[("a.b", Default::Int(1)), ("c", Default::Map), ("c.d", Default::Int(2))], &mut value);
        assert_eq!(value, json!({"c": {"d": 2}}));
        apply_at("c.e", &[("f", Default::Int(3))], &mut value);
        assert_eq!(value, json!({"c": {"d": 2}}));
        apply_at("c", &[("f", Default::Int(3))], &mut value);
        assert_eq!(value, json!({"c": {"d": 2, "f": 3}}));
    }
}
