//! PodSecurity, by the labels of namespaces.

use crate::harness::{Answer, Server, pod};
use serde_json::{Value, json};

fn label(mode: &str) -> String {
    format!("pod-security.kubernetes.io/{mode}")
}

fn warnings(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("warning").iter();
    all.map(|value| value.to_str().unwrap().replace('\\', "")).collect()
}

async fn namespace(s: &Server, name: &str, labels: Value) -> Answer {
    let made = s.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await;
    if made.code == 201 {
        let account = json!({"metadata": {"name": "default"}});
        assert_eq!(s.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await.code, 201);
    }
    made
}

#[tokio::test]
async fn pods_are_refused_and_their_workloads_warned_of() {
    let s = Server::start().await;
    namespace(&s, "strict", json!({label("enforce"): "restricted"})).await;
    let pods = "/api/v1/namespaces/strict/pods";
    let refused = s.post(pods, &pod("p")).await;
    let why = "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
        unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
        runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
        seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let expected = format!("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": {why}");
    assert_eq!((refused.code, refused.body["message"].as_str().unwrap()), (403, expected.as_str()));
    assert!(warnings(&refused).is_empty());

    let mut good = pod("good");
    good["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    good["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let made = s.post(pods, &good).await;
    assert_eq!((made.code, warnings(&made)), (201, Vec::new()), "{}", made.body);

    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = s.post("/apis/apps/v1/namespaces/strict/deployments", &deployment).await;
    assert_eq!(made.code, 201);
    assert_eq!(warnings(&made), [format!("299 - \"would violate PodSecurity \"restricted:latest\": {why}\"")]);
    let job = json!({"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template":
        {"spec": {"restartPolicy": "Never", "hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}}}}}});
    let made = s.post("/apis/batch/v1/namespaces/strict/cronjobs", &job).await;
    assert!(warnings(&made)[0].contains("host namespaces (hostNetwork=true), "), "{:?}", warnings(&made));
    s.stop().await;
}

#[tokio::test]
async fn labels_are_checked_and_a_stricter_level_tells_of_the_pods_there() {
    let s = Server::start().await;
    let bad = namespace(&s, "bad", json!({label("warn"): "strict"})).await;
    let why = "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"strict\": must be one of privileged, baseline, restricted";
    assert_eq!(
        (bad.code, bad.body["message"].as_str().unwrap()),
        (422, format!("Namespace \"bad\" is invalid: {why}").as_str())
    );

    namespace(&s, "ns", json!({label("warn"): "baseline", label("warn-version"): "v1.30"})).await;
    let mut shared = pod("shared");
    shared["spec"]["hostPID"] = json!(true);
    let made = s.post("/api/v1/namespaces/ns/pods", &shared).await;
    assert_eq!(made.code, 201);
    assert_eq!(
        warnings(&made),
        ["299 - \"would violate PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)\""]
    );
    for name in ["other", "another"] {
        assert_eq!(s.post("/api/v1/namespaces/ns/pods", &pod(name)).await.code, 201);
    }
    let to = |level: &str| json!({"metadata": {"labels": {label("enforce"): level}}});
    let path = "/api/v1/namespaces/ns";
    let stricter = s.patch(path, &to("baseline")).await;
    let head = |level: &str| {
        format!(
            "299 - \"existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"{level}:latest\"\""
        )
    };
    assert_eq!(
        (stricter.code, warnings(&stricter)),
        (200, vec![head("baseline"), "299 - \"shared: host namespaces\"".into()])
    );
    let strictest = s.patch(path, &to("restricted")).await;
    let all = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile";
    let told = [
        head("restricted"),
        format!("299 - \"another (and 1 other pod): {all}\""),
        format!("299 - \"shared: host namespaces, {all}\""),
    ];
    assert_eq!(warnings(&strictest), told);
    assert!(warnings(&s.patch(path, &to("baseline")).await).is_empty(), "a milder level needs no word");

    // What was there may go on, and be changed, but become no other.
    let labelled = s.patch("/api/v1/namespaces/ns/pods/shared", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled.code, 200);
    let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    let path = "/api/v1/namespaces/ns/pods/shared";
    let changed = s.call("PATCH", path, "application/strategic-merge-patch+json", &image).await;
    assert_eq!(changed.code, 403, "{}", changed.body);
    s.stop().await;
}
