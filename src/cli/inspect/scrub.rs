//! Takes secrets out of what goes into a report.

use serde_json::Value;

const REMOVED: &str = "<removed>";
/// A header of a signed token, `{"`, in base64.
const TOKEN: &str = "eyJ";
/// Fields and environment variables whose names hold one of these.
const TELLING: [&str; 6] = ["password", "passwd", "secret", "token", "credential", "private"];

/// Text without tokens and private keys.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("PRIVATE KEY-----") {
            if !in_key {
                out.push_str(REMOVED);
                out.push('\n');
            }
            // Begin and end on one line: escaped in JSON.
            in_key = line.contains("-----BEGIN") && !line.contains("-----END");
        } else if !in_key {
            out.push_str(&without_tokens(line));
        }
    }
    out
}

fn without_tokens(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(TOKEN) {
        let (before, token) = rest.split_at(at);
        let end = token.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(token.len());
        let (token, after) = token.split_at(end);
        out.push_str(before);
        out.push_str(if token.matches('.').count() == 2 { REMOVED } else { token });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// An object of the API without what Secrets and telling variables hold.
pub(super) fn object(kind: &str, object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
        if let Some(notes) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            // Whole manifests, Secrets' among them.
            notes.remove("kubectl.kubernetes.io/last-applied-configuration");
            notes.remove("mini.local/applied");
        }
    }
    if kind == "Secret" {
        for field in ["data", "stringData"] {
            for (_, value) in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
                *value = REMOVED.into();
            }
        }
        return;
    }
    variables(object);
}

/// Blanks `{name: DB_PASSWORD, value: …}` and `DB_PASSWORD: …` at any depth.
fn variables(value: &mut Value) {
    let telling = |name: &str| TELLING.iter().any(|word| name.to_lowercase().contains(word));
    match value {
        Value::Object(map) => {
            if map.get("name").and_then(Value::as_str).is_some_and(telling)
                && let Some(value @ Value::String(_)) = map.get_mut("value")
            {
                *value = REMOVED.into();
            }
            for (key, value) in map {
                // Names of Secrets are no secrets.
                let named = key.ends_with("Name") || key == "name";
                if telling(key) && !named && value.is_string() {
                    *value = REMOVED.into();
                }
                variables(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(variables),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_and_keys_go() {
        let seen = text(
            "a eyJhbGciOi.eyJpc3Mi.c2ln-x_ b eyJplain\n-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\nc\n",
        );
        assert_eq!(seen, "a <removed> b eyJplain\n<removed>\nc\n");
    }

    #[test]
    fn secrets_keep_only_their_keys() {
        let mut secret = json!({"data": {"k": "djE="}, "metadata": {"name": "s", "annotations": {"mini.local/applied": "{}", "a": "b"}}});
        object("Secret", &mut secret);
        assert_eq!(secret, json!({"data": {"k": "<removed>"}, "metadata": {"name": "s", "annotations": {"a": "b"}}}));
        let mut pod = json!({"env": [{"name": "DB_PASSWORD", "value": "x"}, {"name": "A", "value": "y"}],
                             "secretName": "s", "data": {"apiToken": "z"}, "tokenExpirationSeconds": 3});
        object("Pod", &mut pod);
        assert_eq!(
            pod,
            json!({"env": [{"name": "DB_PASSWORD", "value": "<removed>"}, {"name": "A", "value": "y"}],
                               "secretName": "s", "data": {"apiToken": "<removed>"}, "tokenExpirationSeconds": 3})
        );
    }
}
