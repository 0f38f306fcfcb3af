//! Fields that are unknown or given twice: `fieldValidation` in its three forms, for each way to write.

use crate::harness::{Answer, JSON, MERGE, Server};

const YAML: &str = "application/yaml";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn send(s: &Server, method: &str, path: &str, content_type: &str, body: &str) -> Answer {
    let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
    s.send(request.body(body.as_bytes().to_vec().into()).unwrap()).await
}

/// A deployment in JSON with `more` in its spec.
fn deployment(name: &str, more: &str) -> String {
    let spec = r#""selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never", "imagePullPolicy": "Always"}]}}"#;
    format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "{name}"}}, "spec": {{{more}, {spec}}}}}"#
    )
}

const ODD: &str = r#""unknown1": "val1", "unknownDupe": "a", "unknownDupe": "b", "paused": true, "paused": false"#;

fn in_yaml(name: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  unknown1: val1\n  paused: true\n  paused: \
         false\n  selector:\n    matchLabels: {{a: b}}\n  template:\n    metadata:\n      labels: {{a: b}}\n    spec:\n      \
         containers: [{{name: c, image: i}}]\n"
    )
}

/// Each of the three forms: what Strict refuses with, and what Warn says.
async fn three_ways(s: &Server, how: (&str, &str, &str), body: &str, refused: (u16, &str, &str), warned: &[&str]) {
    let (method, path, content_type) = how;
    let with = |validation: &str| {
        let and = if path.contains('?') { '&' } else { '?' };
        format!("{path}{and}dryRun=All&fieldValidation={validation}")
    };
    let what = format!("{method} {content_type}");
    let strict = send(s, method, &with("Strict"), content_type, body).await;
    let (code, reason, message) = strict.failure();
    assert_eq!((code, reason), (refused.0, refused.1), "{what}: {}", strict.body);
    assert!(message.ends_with(refused.2), "{what}: {message}");
    let warnings: Vec<String> =
        warned.iter().map(|w| format!("299 - \"{}\"", w.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    for validation in ["Warn", ""] {
        let answer = send(s, method, &with(validation), content_type, body).await;
        assert!(matches!(answer.code, 200 | 201), "{what}: {}", answer.body);
        assert_eq!(answer.warnings(), warnings, "{what}");
        assert_eq!(answer.body["spec"].get("unknown1"), None, "{what}: what is unknown is dropped");
    }
    let ignored = send(s, method, &with("Ignore"), content_type, body).await;
    assert!(matches!(ignored.code, 200 | 201), "{what}: {}", ignored.body);
    assert_eq!(ignored.warnings(), [""; 0], "{what}");
}

#[tokio::test]
async fn creates_and_updates_tell_of_odd_fields_in_json_and_yaml() {
    let s = Server::start().await;
    let there = format!("{DEPLOYMENTS}/there");
    assert_eq!(send(&s, "POST", DEPLOYMENTS, YAML, &in_yaml("there")).await.code, 201);
    let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: ";
    // In the order of the text; what is unknown is only that.
    let json = [
        "unknown field \"spec.unknown1\"",
        "unknown field \"spec.unknownDupe\"",
        "duplicate field \"spec.paused\"",
        "duplicate field \"spec.template.spec.containers[0].imagePullPolicy\"",
    ];
    let refused = format!("{prefix}{}", json.join(", "));
    let yaml = ["line 8: key \"paused\" already set in map", "unknown field \"spec.unknown1\""];
    let refused_yaml = format!("{prefix}yaml: unmarshal errors:\n  {}, {}", yaml[0], yaml[1]);
    for (method, path, name) in [("POST", DEPLOYMENTS, "new"), ("PUT", &there, "there")] {
        let refused = (400, "BadRequest", refused.as_str());
        three_ways(&s, (method, path, JSON), &deployment(name, ODD), refused, &json).await;
        let refused = (400, "BadRequest", refused_yaml.as_str());
        three_ways(&s, (method, path, YAML), &in_yaml(name), refused, &yaml).await;
    }
    let other = send(&s, "POST", &format!("{DEPLOYMENTS}?fieldValidation=Loud"), JSON, &deployment("x", ODD)).await;
    let why = "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Loud\": supported values: \
               \"Ignore\", \"Strict\", \"Warn\"";
    assert_eq!(other.failure(), (422, "Invalid", why));
    s.stop().await;
}

#[tokio::test]
async fn patches_tell_of_odd_fields_each_in_its_way() {
    let s = Server::start().await;
    let there = format!("{DEPLOYMENTS}/there");
    assert_eq!(send(&s, "POST", DEPLOYMENTS, YAML, &in_yaml("there")).await.code, 201);
    let merge = format!(r#"{{"spec": {{{ODD}}}}}"#);
    let odd = [
        "duplicate field \"spec.unknownDupe\"",
        "duplicate field \"spec.paused\"",
        "unknown field \"spec.unknown1\"",
        "unknown field \"spec.unknownDupe\"",
    ];
    let refused = format!("strict decoding error: {}", odd.join(", "));
    for kind in [MERGE, STRATEGIC] {
        three_ways(&s, ("PATCH", &there, kind), &merge, (422, "Invalid", &refused), &odd).await;
    }
    let shown = send(&s, "PATCH", &format!("{there}?fieldValidation=Strict"), STRATEGIC, &merge).await;
    let map = "map[spec:map[paused:false unknown1:val1 unknownDupe:b]]";
    let message = format!(" \"\" is invalid: patch: Invalid value: \"{map}\": {refused}");
    assert_eq!(shown.failure(), (422, "Invalid", message.as_str()));
    assert_eq!(shown.body["details"]["causes"][0]["field"], "patch");
    let operations = r#"[{"op": "add", "path": "/spec/unknown1", "value": 1, "foo": "bar"},
        {"op": "add", "path": "/spec/paused", "path": "/spec/paused", "value": true}]"#;
    let odd = [
        "json patch duplicate field \"[1].path\"",
        "json patch unknown field \"[0].foo\"",
        "unknown field \"spec.unknown1\"",
    ];
    let refused = format!("strict decoding error: {}", odd.join(", "));
    three_ways(&s, ("PATCH", &there, JSON_PATCH), operations, (422, "Invalid", &refused), &odd).await;
    // A wrong type is refused whatever is asked.
    for validation in ["Strict", "Warn", "Ignore"] {
        let path = format!("{there}?fieldValidation={validation}");
        let wrong = send(&s, "PATCH", &path, STRATEGIC, r#"{"spec": {"replicas": "three"}}"#).await;
        let message = " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:three]]\": json: cannot unmarshal \
                       string into Go struct field DeploymentSpec.spec.replicas of type int32";
        assert_eq!(wrong.failure(), (422, "Invalid", message));
    }
    s.stop().await;
}

#[tokio::test]
async fn an_apply_tells_of_keys_given_twice_and_takes_no_unknown_field() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/applied?fieldManager=m");
    let twice = in_yaml("applied").replace("  unknown1: val1\n", "");
    let refused = "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \
                   \"paused\" already set in map";
    let warned = ["line 7: key \"paused\" already set in map"];
    three_ways(&s, ("PATCH", &path, APPLY), &twice, (400, "BadRequest", refused), &warned).await;
    for validation in ["Strict", "Warn", "Ignore"] {
        let unknown = in_yaml("applied").replace("  paused: true\n", "");
        let answer = send(&s, "PATCH", &format!("{path}&fieldValidation={validation}"), APPLY, &unknown).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(answer.code, 500, "{validation}: {}", answer.body);
        assert!(message.ends_with(".spec.unknown1: field not declared in schema"), "{validation}: {message}");
    }
    assert_eq!(s.get(&format!("{DEPLOYMENTS}/applied")).await.code, 404);
    s.stop().await;
}
