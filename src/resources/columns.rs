//! Printed columns of a `meta/v1.Table`, and the words that cells are made of (ages, ports, selectors).

use jiff::Timestamp;
use mini_api::Meta;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// `TableColumnDefinition`. `priority` 0 is always shown, 1 only with `-o wide`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Cow<'static, str>,
    pub type_: Cow<'static, str>,
    pub format: Cow<'static, str>,
    pub description: Cow<'static, str>,
    pub priority: i32,
}

impl Column {
    /// A column of strings that is always shown.
    pub(crate) const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "", description, 0)
    }

    /// A column of integers that is always shown.
    pub(crate) const fn number(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "integer", "", description, 0)
    }

    /// A column of strings for `-o wide`.
    pub(crate) const fn wide(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "", description, 1)
    }

    pub(crate) const fn new(
        name: &'static str,
        type_: &'static str,
        format: &'static str,
        description: &'static str,
        priority: i32,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            type_: Cow::Borrowed(type_),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority,
        }
    }
}

/// The first column of every kind.
pub(crate) const NAME: Column = Column::new("Name", "string", "name", "Name of the object, unique in its scope.", 0);
/// The usual last column.
pub(crate) const AGE: Column = Column::text("Age", "Time since the object was created.");

/// The last column of kinds without columns of their own.
pub(crate) const CREATED_AT: Column = Column::new("Created At", "date", "", "When the object was created.", 0);

/// The columns of `autoscaling/v1.Scale`, which belongs to no row.
pub const SCALE: &[Column] = &[
    Column::new("Name", "string", "", "Name of the object, unique in its scope.", 0),
    Column::number("Desired", "Pods asked for."),
    Column::number("Available", "Pods there are."),
    AGE,
];

/// The cells of a Scale.
#[must_use]
pub fn scale_cells(v: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(v), int(v, &["spec", "replicas"]).into(), int(v, &["status", "replicas"]).into(), age(v, now)]
}

/// What a cell shows where nothing is set.
pub(crate) const NONE: &str = "<none>";
pub(crate) const UNKNOWN: &str = "<unknown>";
pub(crate) const UNSET: &str = "<unset>";

/// `duration.HumanDuration` of apimachinery: two units at most, fewer as the age grows.
#[must_use]
pub fn human_duration(seconds: i64) -> String {
    // A clock that is a second apart is not an error worth showing.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        pair(hours / 24, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{}d", hours / 24)
    } else if hours < 24 * 365 * 8 {
        pair(hours / 24 / 365, "y", (hours / 24) % 365, "d")
    } else {
        format!("{}y", hours / 24 / 365)
    }
}

/// How long ago the RFC 3339 time `at` was.
pub(crate) fn since(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(t) => human_duration(now.as_second() - t.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

pub(crate) fn name(v: &Value) -> Value {
    v.name().into()
}

pub(crate) fn age(v: &Value, now: Timestamp) -> Value {
    since(v.text(&["metadata", "creationTimestamp"]), now).into()
}

/// The string at `path`, or `otherwise` where it is absent or empty.
pub(crate) fn text_or(v: &Value, path: &[&str], otherwise: &str) -> Value {
    match v.text(path) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

/// The integer at `path`, zero where it is absent.
pub(crate) fn int(v: &Value, path: &[&str]) -> i64 {
    path.iter().try_fold(v, |v, name| v.get(name)).and_then(Value::as_i64).unwrap_or(0)
}

/// The elements at `path`; nothing where it is absent or not a list.
pub(crate) fn list<'a>(v: &'a Value, path: &[&str]) -> &'a [Value] {
    path.iter().try_fold(v, |v, name| v.get(name)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The map at `path`, if any.
pub(crate) fn map<'a>(v: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    path.iter().try_fold(v, |v, name| v.get(name)).and_then(Value::as_object)
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels(map: Option<&Map<String, Value>>) -> String {
    match map {
        Some(map) if !map.is_empty() => {
            let mut terms: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            terms.sort_unstable();
            terms.join(",")
        }
        _ => NONE.to_owned(),
    }
}

/// A `LabelSelector` as `-o wide` writes it: `a=b,c in (d,e),!f`.
pub(crate) fn selector(v: Option<&Value>) -> String {
    let Some(v) = v else { return NONE.to_owned() };
    let mut terms = map(v, &["matchLabels"])
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect::<Vec<_>>();
    for e in list(v, &["matchExpressions"]) {
        let key = e.text(&["key"]);
        let mut values = list(e, &["values"]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        values.sort_unstable();
        let values = values.join(",");
        terms.push(match e.text(&["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if terms.is_empty() {
        return NONE.to_owned();
    }
    terms.sort_by(|a, b| term_key(a).cmp(term_key(b)));
    terms.join(",")
}

fn term_key(term: &str) -> &str {
    term.trim_start_matches('!').split(['=', ' ']).next().unwrap_or_default()
}

/// Names and images of the containers of a pod spec, each joined with commas.
pub(crate) fn containers_and_images(pod_spec: Option<&Value>) -> (String, String) {
    let containers = pod_spec.map_or(&[][..], |s| list(s, &["containers"]));
    let joined = |field: &str| containers.iter().map(|c| c.text(&[field])).collect::<Vec<_>>().join(",");
    (joined("name"), joined("image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (7 * 3600 + 59 * 60, "7h59m"),
            (8 * 3600 + 59 * 60, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86400 + 3600, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (8 * 365 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn labels_are_pairs_even_without_a_value() {
        let map = json!({"b": "1", "a": ""});
        assert_eq!(labels(map.as_object()), "a=,b=1");
        assert_eq!(labels(None), "<none>");
    }

    #[test]
    fn selectors_are_ordered_by_key() {
        let s = json!({"matchLabels": {"z": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["y", "x"]}, {"key": "a", "operator": "DoesNotExist"}]});
        assert_eq!(selector(Some(&s)), "!a,b in (x,y),z=1");
        assert_eq!(selector(Some(&json!({}))), "<none>");
        assert_eq!(selector(None), "<none>");
    }
}
