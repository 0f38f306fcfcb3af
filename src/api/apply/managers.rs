//! `metadata.managedFields`: who owns what, since when.

use super::fields_v1;
use super::set::Set;
use crate::text;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What made a manager the owner of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// `ManagedFieldsEntry`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    /// The version in which `set` is written.
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// RFC 3339, to the second, in UTC.
    pub time: Option<String>,
    pub set: Set,
}

impl Entry {
    /// Whether both are of one manager, which then has one entry. An applier has one whatever versions it applies.
    pub(crate) fn same_manager(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    fn key(&self) -> (Operation, &str, &str, &str) {
        let version = if self.operation == Operation::Apply { "" } else { &self.api_version };
        (self.operation, &self.manager, &self.subresource, version)
    }

    pub(crate) fn order(&self) -> (Operation, Option<&str>, &str, &str, &str) {
        (self.operation, self.time.as_deref(), &self.manager, &self.api_version, &self.subresource)
    }
}

/// How messages about conflicts name a manager.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub(crate) Vec<Entry>);

impl Managers {
    /// Reads `metadata.managedFields`; an absent one is empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(managed_fields: &Value) -> Result<Self, String> {
        let entries = match managed_fields {
            Value::Null => return Ok(Self::default()),
            Value::Array(entries) => entries,
            _ => return Err("managedFields must be a list".to_owned()),
        };
        let mut decoded = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
            }
            decoded.push(Entry {
                manager: text("manager").to_owned(),
                operation,
                api_version: text("apiVersion").to_owned(),
                subresource: text("subresource").to_owned(),
                time: Some(text("time")).filter(|time| !time.is_empty()).map(str::to_owned),
                set: fields_v1::decode(entry.get("fieldsV1").unwrap_or(&Value::Null))?,
            });
        }
        // Of several entries of one manager the last counts.
        let last: BTreeMap<_, usize> = decoded.iter().enumerate().map(|(i, entry)| (entry.key(), i)).collect();
        let kept: Vec<bool> = decoded.iter().enumerate().map(|(i, e)| last.get(&e.key()) == Some(&i)).collect();
        Ok(Self(decoded.into_iter().zip(kept).filter_map(|(entry, kept)| kept.then_some(entry)).collect()))
    }

    /// Reads what [`Self::write`] or [`Self::encode`] made.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(text: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stored<'a> {
            #[serde(borrow)]
            manager: Cow<'a, str>,
            #[serde(borrow)]
            operation: Cow<'a, str>,
            #[serde(borrow)]
            api_version: Cow<'a, str>,
            #[serde(borrow, default)]
            subresource: Cow<'a, str>,
            time: Option<String>,
            #[serde(default)]
            fields_v1: Set,
        }
        let entries: Vec<Stored<'_>> = serde_json::from_slice(text)?;
        let entry = |stored: Stored<'_>| Entry {
            manager: stored.manager.into_owned(),
            operation: if stored.operation == "Apply" { Operation::Apply } else { Operation::Update },
            api_version: stored.api_version.into_owned(),
            subresource: stored.subresource.into_owned(),
            time: stored.time,
            set: stored.fields_v1,
        };
        Ok(Self(entries.into_iter().map(entry).collect()))
    }

    /// As the text of `metadata.managedFields`, in upstream's order; none where there are none.
    #[must_use]
    pub fn write(mut self) -> Option<Vec<u8>> {
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut out = Vec::with_capacity(512);
        for entry in &self.0 {
            out.push(if out.is_empty() { b'[' } else { b',' });
            out.extend_from_slice(b"{\"apiVersion\":");
            text::write_str(&entry.api_version, &mut out);
            out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
            fields_v1::write(&entry.set, &mut out);
            let texts = [
                ("manager", entry.manager.as_str()),
                ("operation", entry.operation.as_str()),
                ("subresource", &entry.subresource),
                ("time", entry.time.as_deref().unwrap_or_default()),
            ];
            for (name, value) in texts.into_iter().filter(|(name, value)| *name == "manager" || !value.is_empty()) {
                out.push(b',');
                text::write_str(name, &mut out);
                out.push(b':');
                text::write_str(value, &mut out);
            }
            out.push(b'}');
        }
        (!out.is_empty()).then(|| {
            out.push(b']');
            out
        })
    }

    /// As `metadata.managedFields`, in upstream's order; none where there are none.
    #[must_use]
    pub fn encode(mut self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| a.order().cmp(&b.order()));
        let entry = |entry: &Entry| {
            let mut out = json!({
                "manager": entry.manager,
                "operation": entry.operation.as_str(),
                "apiVersion": entry.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields_v1::encode(&entry.set),
            });
            for (name, value) in [("time", entry.time.as_deref()), ("subresource", Some(entry.subresource.as_str()))] {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    out[name] = value.into();
                }
            }
            out
        };
        Some(Value::Array(self.0.iter().map(entry).collect()))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Adds an entry, in place of one of the same manager.
    pub fn put(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|e| e.same_manager(&entry)) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }

    /// Takes the entry of `entry`'s manager out.
    pub(crate) fn take(&mut self, entry: &Entry) -> Option<Entry> {
        let at = self.0.iter().position(|e| e.same_manager(entry))?;
        Some(self.0.remove(at))
    }
}

/// Whether a character may be in a manager's name: Go's `unicode.IsPrint`.
#[must_use]
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // What Rust escapes in the middle of a text is what does not print, and what ends a literal.
    matches!(c, '"' | '\'' | '\\') || format!("a{c}").escape_debug().count() == 2
}

/// Whether a client says by its `managedFields` that they are to be forgotten: `[]`, or `[{}]`.
#[must_use]
pub fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_and_whole() {
        let entry = |manager: &str, operation: &str, time: &str| {
            json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": time,
                   "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}})
        };
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let mut status = entry("a", "Update", late);
        status["subresource"] = "status".into();
        let given = json!([status, entry("b", "Update", early), entry("z", "Apply", late), entry("a", "Update", late)]);
        let managers = Managers::decode(&given).unwrap();
        let sorted = json!([given[2], given[1], given[3], given[0]]);
        assert_eq!(managers.clone().encode(), Some(sorted.clone()));
        let text = managers.clone().write().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), sorted);
        assert_eq!(Managers::read(&text).unwrap().encode(), Some(sorted));
        let names: Vec<String> = managers.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [r#""a" with subresource "status" using v1"#, r#""b" using v1"#, r#""z""#, r#""a" using v1"#]
        );
        assert_eq!(Managers::decode(&json!([])).unwrap().encode(), None);
        assert_eq!(Managers::default().write(), None);
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"});
        assert!(Managers::decode(&json!([good])).is_ok());
        for (field, value) in [
            ("operation", json!("Other")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("V2")),
            ("fieldsV1", json!([])),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(Managers::decode(&json!([bad])).is_err(), "{bad}");
        }
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])));
        assert!(!is_reset(&Value::Null) && !is_reset(&json!([{"manager": "a"}])) && !is_reset(&json!([{}, {}])));
    }

    #[test]
    fn of_several_entries_of_a_manager_the_last_counts() {
        let entry = |manager: &str, version: &str, field: &str| {
            json!({"manager": manager, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1",
                   "fieldsV1": {field: {}}})
        };
        let many: Vec<Value> = (0..20_000).map(|i| entry(&format!("m{i}"), "v1", "f:x")).collect();
        let given = [many, vec![entry("m0", "v2", "f:y")]].concat();
        let began = std::time::Instant::now();
        let managers = Managers::decode(&Value::Array(given)).unwrap();
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        assert_eq!(managers.iter().count(), 20_000);
        let first: Vec<_> = managers.iter().filter(|e| e.manager == "m0").map(|e| e.set.to_string()).collect();
        assert_eq!(first, [".y"]);
    }

    #[test]
    fn names_are_printable() {
        assert!("kubectl create 2.0 \"\u{e9}\u{301}\u{4e2d}'\\".chars().all(is_printable));
        for c in ['\n', '\u{7f}', '\u{ad}', '\u{200b}', '\u{200d}', '\u{202e}', '\u{2028}', '\u{feff}', '\u{a0}'] {
            assert!(!is_printable(c), "{c:?}");
        }
    }
}
