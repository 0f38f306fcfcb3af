//! Mutated inputs for the decoders of bodies, custom kinds' schemas and paths, and objects of every kind.

use crate::custom::{self, json_path::JsonPath, pattern};
use crate::{Registry, Resource, duplicate_fields, protobuf};
use mini_fuzz::{outcome, run};
use serde_json::{Value, json};
use std::sync::LazyLock;

static BUILTIN: LazyLock<Registry> = LazyLock::new(Registry::builtin);

const POD: &[u8] = br#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": null}, "spec": {
    "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1500m"}},
    "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3}}],
    "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
    "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 0}], "nodeSelector": {"a": "b"}}}"#;
const DEPLOYMENT: &[u8] =
    br#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 2,
    "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]},
    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}"#;
const SERVICE: &[u8] = br#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "UDP"}], "clusterIPs": ["10.0.0.1"]}}"#;
const SECRET: &[u8] =
    br#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AAE="}, "immutable": true}"#;
const POLICY: &[u8] = br#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {"podSelector": {},
    "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": "http", "endPort": 90}]}]}}"#;
const CRON_JOB: &[u8] = br#"{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "j"}, "spec": {"schedule": "*/5 * * * *",
    "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}"#;
const DEFINITION: &[u8] = br#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.example.com"},
    "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"}, "versions": [{"name": "v1",
    "served": true, "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}},
    "selectableFields": [{"jsonPath": ".spec.s"}], "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "required": ["n"], "properties": {
    "n": {"type": "integer", "minimum": 0, "maximum": 9, "default": 3, "format": "int32"}, "s": {"type": "string", "pattern": "^a+$", "maxLength": 5, "enum": ["a"]},
    "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"],
    "properties": {"k": {"type": "string", "default": "d"}}}}, "m": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}},
    "any": {"x-kubernetes-preserve-unknown-fields": true, "nullable": true}}}}}}}]}}"#;
const OBJECTS: &[&[u8]] = &[POD, DEPLOYMENT, SERVICE, SECRET, POLICY, CRON_JOB, DEFINITION];
const WORDS: &[&str] = &[
    "null",
    "{}",
    "[]",
    "[{}]",
    "\"\"",
    "\"a\"",
    "-1",
    "true",
    "\"spec\"",
    "\"metadata\"",
    "\"name\"",
    "\"\u{e9}\"",
    "\"1Gi\"",
    "\"$patch\"",
    "\"generateName\"",
    "\"ownerReferences\"",
    "\"finalizers\"",
    "\"type\"",
    "\"object\"",
    "\"properties\"",
    "\"items\"",
    "\"default\"",
];

fn row_of(object: &Value) -> Option<std::sync::Arc<Resource>> {
    let (group, version) =
        object["apiVersion"].as_str()?.split_once('/').unwrap_or(("", object["apiVersion"].as_str()?));
    BUILTIN.by_kind(group, version, object["kind"].as_str()?)
}

/// As a create and an update take an object through its row; what was said of it.
fn through(row: &Resource, mut object: Value) -> String {
    let unknown = match row.normalize(&mut object) {
        Ok(unknown) => unknown.len(),
        Err(status) => return outcome(&Err::<(), _>(status.message)),
    };
    // What is normal stays as it is.
    let mut again = object.clone();
    let repeated = row.normalize(&mut again).map_err(|status| status.message);
    assert_eq!((repeated, &again), (Ok(Vec::new()), &object), "normalized twice");
    row.prepare_create(&mut object);
    row.default(&mut object);
    let mut again = object.clone();
    row.default(&mut again);
    assert_eq!(again, object, "defaulted twice");
    let errors = row.validate(&object);
    let mut changed = object.clone();
    row.prepare_update(&mut changed, &object, None);
    let _ = (row.validate_update(&changed, &object, None), row.strategic_merge(&object, &changed));
    let now = "2026-01-01T01:00:00Z".parse().expect("a time");
    let cells = row.cells(&object, now).len();
    assert_eq!(cells, row.columns.len(), "a cell for each column");
    format!(
        "{} {unknown} {:?}",
        row.kind,
        errors.iter().take(2).map(|e| outcome(&Err::<(), _>(e.to_string()))).collect::<Vec<_>>()
    )
}

#[test]
fn objects() {
    run(OBJECTS, WORDS, |input| {
        let _ = duplicate_fields(input);
        let Ok(object) = serde_json::from_slice::<Value>(input) else { return String::new() };
        row_of(&object).map(|row| through(&row, object)).unwrap_or_default()
    });
}

#[test]
fn protobuf_bodies() {
    let corpus: Vec<Vec<u8>> =
        OBJECTS.iter().flat_map(|json| protobuf::encode(&serde_json::from_slice(json).expect("JSON"))).collect();
    assert!(corpus.len() >= 6);
    let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    run(&corpus, &["k8s\0", "\n\x02v1", "\x12\x03Pod", "\u{0}", "\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x7f\x01"], |input| {
        let read = protobuf::decode(input);
        if let Ok(object) = &read
            && let Ok(bytes) = protobuf::encode(object)
        {
            // What is written is read, and writing that again gives the same bytes.
            let back = protobuf::decode(&bytes).expect("what is written is read");
            assert_eq!(protobuf::encode(&back).as_ref(), Ok(&bytes));
        }
        outcome(&read)
    });
}

#[test]
fn custom_kinds() {
    let object = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"},
        "spec": {"n": "3", "s": "aaa", "l": [{"k": "x"}, {"k": "x"}, {}], "m": {"a": 1, "b": "c"}, "any": {"deep": [null]}}});
    run(&[DEFINITION], WORDS, |input| {
        let Ok(definition @ Value::Object(_)) = serde_json::from_slice::<Value>(input) else { return String::new() };
        let mut definition = definition;
        definition["apiVersion"] = "apiextensions.k8s.io/v1".into();
        definition["kind"] = "CustomResourceDefinition".into();
        let Some(row) = row_of(&definition) else { return String::new() };
        let Ok(_) = row.normalize(&mut definition) else { return "not read".to_owned() };
        row.prepare_create(&mut definition);
        row.default(&mut definition);
        let errors = row.validate(&definition);
        if let Some(first) = errors.first() {
            return outcome(&Err::<(), _>(first.to_string()));
        }
        custom::rows(&definition).iter().map(|row| through(row, object.clone())).collect()
    });
}

#[test]
fn paths() {
    let value = json!({"a": [{"b": 1, "c": "x"}, {"b": 2, "d": {"e": null}}], "s": "t"});
    let corpus: &[&[u8]] = &[b".a[?(@.b==1)].c", b"$..b", b".a[0:2:1]", b"['a'][*]", b".a[-1].d.e", b"{.s}"];
    run(corpus, &["[?(@.", "]", "..", "==", "\"x\"", "[*]", "[-1]", "[1:", "$", "@", "&&"], |input| {
        let text = String::from_utf8_lossy(input);
        let path = JsonPath::parse(&text);
        path.map(|path| path.find(&value).len())
    });
    run(
        &[b"^[a-z]+(-[a-z]{1,3})*$", b"\\d\\p{L}[^\\]x]"],
        &["(?i)", "{1000}", "{1000}{1000}", "[[:alpha:]]", "\\Q", "\\E", "|", "(?P<a>"],
        |input| {
            let compiled = pattern::compile(&String::from_utf8_lossy(input));
            outcome(&compiled.map(|pattern| pattern.is_match("some text-to-match 123")))
        },
    );
}

#[test]
fn formats() {
    const FORMATS: [&str; 13] = [
        "date-time",
        "duration",
        "ipv4",
        "cidr",
        "email",
        "uuid",
        "byte",
        "hostname",
        "uri",
        "int32",
        "date",
        "mac",
        "isbn",
    ];
    let corpus: &[&[u8]] = &[b"2026-01-01T00:00:00Z", b"1h2m", b"10.0.0.1/8", b"a@b.c", b"::1", b"978-3-16-148410-0"];
    run(corpus, &[":", ".", "/", "%", "@", "-", "::ffff:"], |input| {
        FORMATS.map(|format| custom::format::holds(format, &String::from_utf8_lossy(input)))
    });
}
