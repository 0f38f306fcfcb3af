//! ConfigMap and Secret.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, map};
use crate::resource::Hooks;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, FieldPath, Meta, names};
use serde_json::Value;

/// All data of one object together, in bytes.
const DATA_MAX: usize = 1024 * 1024;
const SEALED: &str = "field is immutable when `immutable` is set";

pub(crate) const CONFIG_MAP: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: validate_config_map,
    validate_update: |new, old, _, errors| sealed(new, old, &["data", "binaryData"], errors),
    columns: &[NAME, Column::text("Data", "Number of entries."), AGE],
    cells: |v, now| {
        let entries =
            ["data", "binaryData"].iter().filter_map(|f| map(v, &[f])).map(serde_json::Map::len).sum::<usize>();
        vec![columns::name(v), entries.into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

pub(crate) const SECRET: Hooks = Hooks {
    default: default_secret,
    prepare_update: |new, old, _| {
        if new.text(&["type"]).is_empty()
            && let Some(kind) = old.get("type")
        {
            new["type"] = kind.clone();
        }
    },
    name: names::is_dns1123_subdomain,
    validate: validate_secret,
    validate_update: |new, old, _, errors| {
        At::root(new).get("type").immutable(&At::root(old).get("type"), errors);
        sealed(new, old, &["data"], errors);
    },
    columns: &[NAME, Column::text("Type", "What the secret is for."), Column::text("Data", "Number of entries."), AGE],
    cells: |v, now| {
        let entries = map(v, &["data"]).map_or(0, serde_json::Map::len);
        vec![columns::name(v), v.text(&["type"]).into(), entries.into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

/// `stringData` is only for writing: its entries go into `data`.
fn default_secret(v: &mut Value) {
    let written = v.as_object_mut().and_then(|o| o.remove("stringData"));
    if let Some(Value::Object(entries)) = written
        && !entries.is_empty()
    {
        let data = child_mut(object_mut(v), "data");
        for (key, text) in entries {
            data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
    crate::defaults::apply(&[("type", crate::defaults::Default::Str("Opaque"))], v);
}

/// What base64 text holds, in bytes, without decoding it.
pub(crate) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn keys(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.entries() {
        for message in names::is_config_map_key(key) {
            errors.push(FieldError::invalid(&value.path, key, message));
        }
    }
}

fn validate_config_map(v: &Value, errors: &mut Errors) {
    let (data, binary) = (At::root(v).get("data"), At::root(v).get("binaryData"));
    keys(&data, errors);
    keys(&binary, errors);
    for (key, value) in data.entries() {
        if binary.value.get(key).is_some() {
            errors.push(FieldError::invalid(&value.path, key, "duplicate of key present in binaryData"));
        }
    }
    let size = data.entries().iter().map(|(_, v)| v.text().len()).sum::<usize>()
        + binary.entries().iter().map(|(_, v)| decoded_len(v.text())).sum::<usize>();
    if size > DATA_MAX {
        // Upstream names no field, which Go prints so.
        errors.push(FieldError::too_long(&FieldPath::new("[]"), DATA_MAX));
    }
}

fn validate_secret(v: &Value, errors: &mut Errors) {
    let data = At::root(v).get("data");
    keys(&data, errors);
    if data.entries().iter().map(|(_, v)| decoded_len(v.text())).sum::<usize>() > DATA_MAX {
        errors.push(FieldError::too_long(&data.path, DATA_MAX));
    }
    let entry = |key: &str| At { value: data.value.get(key).unwrap_or(&Value::Null), path: data.path.key(key) };
    match v.text(&["type"]) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let annotations = At::root(v).get("metadata").get("annotations");
            let account = annotations.value.get(key).and_then(Value::as_str).unwrap_or_default();
            if account.is_empty() {
                errors.push(FieldError::required(&annotations.path.key(key), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_entry(&entry(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => json_entry(&entry(".dockerconfigjson"), errors),
        "kubernetes.io/basic-auth" if !entry("username").is_set() && !entry("password").is_set() => {
            errors.push(entry("username").required(""));
            errors.push(entry("password").required(""));
        }
        "kubernetes.io/ssh-auth" => entry("ssh-privatekey").must_be_set(errors),
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !entry(key).is_set() {
                    errors.push(entry(key).required(""));
                }
            }
        }
        _ => {}
    }
}

fn json_entry(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        errors.push(at.required(""));
        return;
    }
    let bytes = STANDARD.decode(at.text()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        errors.push(FieldError::invalid(&at.path, "<secret contents redacted>", error.to_string()));
    }
}

/// An object marked immutable stays as it is.
fn sealed(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    let (new, old) = (At::root(new), At::root(old));
    if !old.get("immutable").is_true() {
        return;
    }
    if !new.get("immutable").is_true() {
        errors.push(new.get("immutable").forbidden(SEALED));
    }
    for field in fields {
        let (now, before) = (new.get(field), old.get(field));
        if now.value != before.value && !(now.is_empty() && before.is_empty()) {
            errors.push(now.forbidden(SEALED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn string_data_goes_into_data() {
        let mut v = json!({"data": {"a": "QQ=="}, "stringData": {"a": "hello", "b": ""}});
        default_secret(&mut v);
        assert_eq!(v, json!({"data": {"a": "aGVsbG8=", "b": ""}, "type": "Opaque"}));
    }

    #[test]
    fn sealed_objects_do_not_change() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let mut errors = Vec::new();
        sealed(&json!({"data": {"a": "2"}}), &old, &["data"], &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
    }

    #[test]
    fn size_is_counted_after_decoding() {
        for text in ["", "QQ==", "aGVsbG8=", "QUJD"] {
            assert_eq!(decoded_len(text), STANDARD.decode(text).unwrap().len(), "{text}");
        }
    }
}
