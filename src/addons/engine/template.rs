//! Variables and conditions in manifests.
//!
//! Works on parsed YAML, never on its text: what is put in stays inside its string, so no value needs escapes and none can
//! add a field. `addons/README.md` describes the form.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

const IF: &str = "$if";
const THEN: &str = "$then";
const RAW: &str = "$raw";

/// What a variable becomes when it stands alone in its string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Number,
    Boolean,
}

/// Variables by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, (Form, String)>);

impl Variables {
    pub(super) fn set(&mut self, name: impl Into<String>, form: Form, value: impl Into<String>) {
        self.0.insert(name.into(), (form, value.into()));
    }

    fn get(&self, name: &str) -> Result<&(Form, String), String> {
        self.0.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!("there is no variable `{name}`; there are {}", known.join(", "))
        })
    }

    fn holds(&self, name: &str) -> Result<bool, String> {
        let (_, value) = self.get(name)?;
        Ok(!value.is_empty() && value != "false")
    }
}

/// `template` with the variables put in; `None` when its condition does not hold. Everything is checked, also in parts
/// whose condition does not hold.
pub(super) fn render(template: &Value, variables: &Variables) -> Result<Option<Value>, String> {
    match template {
        Value::Object(map) => object(map, variables),
        Value::Array(items) => {
            let items: Result<Vec<_>, String> =
                items.iter().filter_map(|item| render(item, variables).transpose()).collect();
            items.map(|items| Some(Value::Array(items)))
        }
        Value::String(text) => string(text, variables).map(Some),
        other => Ok(Some(other.clone())),
    }
}

fn object(map: &Map<String, Value>, variables: &Variables) -> Result<Option<Value>, String> {
    let mut holds = true;
    let mut fields = Map::new();
    let mut instead = None;
    for (key, value) in map {
        match key.as_str() {
            IF => {
                let name = value.as_str().ok_or_else(|| format!("{IF} names one variable"))?;
                holds = variables.holds(name)?;
            }
            THEN => instead = Some(render(value, variables)?),
            RAW => instead = Some(Some(value.clone())),
            key if key.contains("{{") => return Err(format!("{key:?} is a key; variables stand in values only")),
            key => fields.extend(render(value, variables)?.map(|value| (key.to_owned(), value))),
        }
    }
    match instead {
        Some(_) if !fields.is_empty() => Err(format!("no other field may stand beside {THEN} or {RAW}")),
        _ if !holds => Ok(None),
        Some(instead) => Ok(instead),
        None => Ok(Some(Value::Object(fields))),
    }
}

fn string(text: &str, variables: &Variables) -> Result<Value, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) =
            after.split_once("}}").ok_or_else(|| format!("{text:?} opens {{{{ and does not close it"))?;
        let (name, as_text) = match inside.split_once('|') {
            None => (inside.trim(), false),
            Some((name, filter)) if filter.trim() == "text" => (name.trim(), true),
            Some((_, filter)) => return Err(format!("there is no filter `{}`; there is text", filter.trim())),
        };
        let (form, value) = variables.get(name)?;
        if before.is_empty() && after.is_empty() && out.is_empty() && !as_text {
            return Ok(typed(*form, value));
        }
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(Value::String(out))
}

/// An empty number or boolean leaves its field to the default.
fn typed(form: Form, value: &str) -> Value {
    match form {
        Form::Text => Value::String(value.to_owned()),
        Form::Number => value.parse::<i64>().map_or(Value::Null, Value::from),
        Form::Boolean => value.parse::<bool>().map_or(Value::Null, Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        variables.set("image", Form::Text, "mini.local/mini:1");
        variables.set("args.port", Form::Number, "8080");
        variables.set("args.tls", Form::Boolean, "false");
        variables.set("args.none", Form::Text, "");
        variables.set("args.odd", Form::Text, "a: {b} # \"c\"\n- {{ image }}");
        variables
    }

    fn rendered(template: Value) -> Value {
        render(&template, &variables()).unwrap().unwrap()
    }

    #[test]
    fn values_keep_their_kind_alone_and_are_text_otherwise() {
        assert_eq!(
            rendered(
                json!({"a": "{{ image }}", "b": ["{{args.port}}", "--port={{ args.port }}", "{{ args.port | text }}"],
                            "c": "{{ args.tls }}", "d": 3, "e": "{{ image }}-{{ args.port }}!"})
            ),
            json!({"a": "mini.local/mini:1", "b": [8080, "--port=8080", "8080"], "c": false, "d": 3,
                   "e": "mini.local/mini:1-8080!"})
        );
    }

    #[test]
    fn any_manifest_is_answered() {
        let corpus: &[&[u8]] = &[
            br#"{"a": "{{ image }}-{{ args.port | text }}", "$if": "args.tls", "b": ["{{args.odd}}"]}"#,
            br#"{"$if": "args.port", "$then": {"$raw": "{{ x }}"}}"#,
        ];
        mini_fuzz::run(
            corpus,
            &["{{", "}}", "{{ args.none }}", " | text", "\"$if\"", "\"$then\"", "\"$raw\""],
            |input| {
                let Ok(template) = serde_json::from_slice(input) else { return None };
                Some(mini_fuzz::outcome(&render(&template, &variables())))
            },
        );
    }

    #[test]
    fn no_value_breaks_out_of_its_string() {
        let odd = "a: {b} # \"c\"\n- {{ image }}";
        assert_eq!(rendered(json!({"a": "{{ args.odd }}"})), json!({"a": odd}));
        assert_eq!(rendered(json!({"a": "<{{ args.odd }}>"})), json!({"a": format!("<{odd}>")}));
    }

    #[test]
    fn conditions_leave_out_fields_items_and_objects() {
        let template = |name: &str| {
            json!({"list": ["x", {"$if": name, "$then": "--image={{ image }}"}], "field": {"$if": name, "a": 1},
                   "$if": "image"})
        };
        assert_eq!(
            rendered(template("args.port")),
            json!({"list": ["x", "--image=mini.local/mini:1"], "field": {"a": 1}})
        );
        for no in ["args.none", "args.tls"] {
            assert_eq!(rendered(template(no)), json!({"list": ["x"]}));
            assert_eq!(render(&json!({"$if": no, "kind": "Pod"}), &variables()).unwrap(), None);
        }
        assert_eq!(rendered(json!({"a": {"$raw": "{{ $labels }}"}})), json!({"a": "{{ $labels }}"}));
    }

    #[test]
    fn mistakes_are_told_also_where_nothing_is_put_in() {
        for (template, said) in [
            (json!("{{ args.prot }}"), "there is no variable `args.prot`; there are args.none, args.odd"),
            (json!({"$if": "args.none", "a": "{{ nothing }}"}), "no variable `nothing`"),
            (json!({"$if": "nothing"}), "no variable `nothing`"),
            (json!("{{ image"), "does not close"),
            (json!("{{ image | upper }}"), "no filter `upper`"),
            (json!({"{{ image }}": 1}), "variables stand in values only"),
            (json!({"$then": 1, "a": 2}), "no other field"),
        ] {
            let error = render(&template, &variables()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
