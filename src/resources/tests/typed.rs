//! The facts of the schema against the typed view: an object with every field set once passes `normalize` unchanged,
//! and `k8s-openapi` reads and writes it without a difference. So neither knows a field or a type that the other lacks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use k8s_openapi::api::{apps, coordination, core, discovery, rbac};
use mini_resources::{Registry, openapi};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

struct Fullest {
    definitions: Value,
}

impl Fullest {
    fn new(registry: &Registry) -> Self {
        let document: Value = serde_json::from_slice(&openapi::v2(registry)).expect("a document is JSON");
        Self { definitions: document["definitions"].clone() }
    }

    /// An object of the definition with every field, each list and map with one entry. Types that contain themselves
    /// end at their second occurrence.
    fn of(&self, name: &str, within: &[&str]) -> Value {
        match name.rsplit('.').next() {
            Some("Quantity") => return json!("1"),
            Some("IntOrString") => return json!(80),
            Some("Time") => return json!("2026-01-02T03:04:05Z"),
            Some("MicroTime") => return json!("2026-01-02T03:04:05.000006Z"),
            Some("RawExtension" | "FieldsV1") => return json!({"f:a": {}}),
            _ => {}
        }
        let mut path = within.to_vec();
        path.push(name);
        let fields = self.definitions[name]["properties"].as_object().into_iter().flatten();
        fields.filter_map(|(field, schema)| Some((field.clone(), self.value(schema, &path)?))).collect()
    }

    fn value(&self, schema: &Value, within: &[&str]) -> Option<Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/definitions/").expect("a definition");
            return (!within.contains(&name)).then(|| self.of(name, within));
        }
        Some(match schema["type"].as_str().expect("a type") {
            "string" if schema["format"] == "byte" => json!("aGk="),
            "string" => json!("x"),
            "boolean" => json!(true),
            "integer" => json!(7),
            "number" => json!(1.5),
            "array" => json!([self.value(&schema["items"], within)?]),
            "object" => {
                let value = self.value(&schema["additionalProperties"], within)?;
                Value::Object(Map::from_iter([("k".to_owned(), value)]))
            }
            other => panic!("unknown type {other}"),
        })
    }

    fn agrees<K: k8s_openapi::Resource + Serialize + DeserializeOwned>(&self, registry: &Registry) {
        let row = registry.by_kind(K::GROUP, K::VERSION, K::KIND).expect("the kind is served");
        let mut full = self.of(&row.definition, &[]);
        full["apiVersion"] = K::API_VERSION.into();
        full["kind"] = K::KIND.into();
        let mut normal = full.clone();
        assert_eq!(row.normalize(&mut normal).map_err(|s| s.message), Ok(Vec::new()), "{}", K::KIND);
        assert_eq!(normal, full, "{}", K::KIND);
        let typed: K = serde_json::from_value(full.clone()).unwrap_or_else(|e| panic!("{}: {e}", K::KIND));
        let written = serde_json::to_value(typed).expect("writes");
        if let Some(difference) = difference(&full, &written, K::KIND.to_owned()) {
            panic!("{difference}");
        }
    }
}

/// The first place where two values differ.
fn difference(a: &Value, b: &Value, at: String) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|k| {
            difference(a.get(k).unwrap_or(&Value::Null), b.get(k).unwrap_or(&Value::Null), format!("{at}.{k}"))
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| difference(a, b, format!("{at}[]")))
        }
        _ => (a != b).then(|| format!("{at}: {a} is written as {b}")),
    }
}

#[test]
fn schema_and_types_agree() {
    let registry = Registry::builtin();
    let fullest = Fullest::new(&registry);
    fullest.agrees::<core::v1::Pod>(&registry);
    fullest.agrees::<core::v1::Node>(&registry);
    fullest.agrees::<core::v1::Service>(&registry);
    fullest.agrees::<core::v1::Secret>(&registry);
    fullest.agrees::<core::v1::Event>(&registry);
    fullest.agrees::<core::v1::PersistentVolume>(&registry);
    fullest.agrees::<core::v1::PersistentVolumeClaim>(&registry);
    fullest.agrees::<apps::v1::Deployment>(&registry);
    fullest.agrees::<apps::v1::ControllerRevision>(&registry);
    fullest.agrees::<coordination::v1::Lease>(&registry);
    fullest.agrees::<discovery::v1::EndpointSlice>(&registry);
    fullest.agrees::<rbac::v1::ClusterRole>(&registry);
}
