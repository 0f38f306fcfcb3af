use super::*;
use crate::check::Errors;

fn pod(spec: Value) -> Value {
    let mut v =
        json!({"metadata": {"name": "p", "namespace": "d", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec});
    default(&mut v);
    v
}

fn simple() -> Value {
    pod(json!({"containers": [{"name": "a", "image": "x:1"}]}))
}

fn errors_of(v: &Value) -> Vec<String> {
    let mut errors: Errors = Vec::new();
    validate(v, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn update_errors(new: &Value, old: &Value, subresource: Option<&str>) -> Vec<String> {
    let mut errors: Errors = Vec::new();
    update::validate(new, old, subresource, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn limits_become_requests_and_classes_follow() {
    let with = |resources: Value| {
        let mut v = pod(json!({"containers": [{"name": "a", "image": "x", "resources": resources}]}));
        prepare_create(&mut v);
        (v["spec"]["containers"][0]["resources"].clone(), v["status"]["qosClass"].clone())
    };
    assert_eq!(with(json!({})), (json!({}), json!("BestEffort")));
    let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    assert_eq!(with(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), (full, json!("Guaranteed")));
    assert_eq!(with(json!({"requests": {"cpu": "1"}})).1, "Burstable");
    assert_eq!(with(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})).1, "Burstable");
}

#[test]
fn a_good_pod_passes() {
    let v = pod(json!({
        "initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["true"]}}}],
        "containers": [{"name": "a", "image": "x",
            "ports": [{"containerPort": 80, "name": "http"}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "p", "mountPath": "/p", "readOnly": true}],
            "livenessProbe": {"httpGet": {"port": "http"}}, "startupProbe": {"tcpSocket": {"port": 80}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}],
        "volumes": [{"name": "v"}, {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}},
    }));
    assert_eq!(errors_of(&v), Vec::<String>::new());
}

#[test]
fn containers_are_checked() {
    assert_eq!(errors_of(&pod(json!({}))), ["spec.containers: Required value"]);
    let v = pod(
        json!({"containers": [{"name": "A", "imagePullPolicy": "Sometimes"}, {"name": "b", "image": "x "}, {"name": "b", "image": "x",
        "ports": [{"containerPort": 0}, {"containerPort": 80, "protocol": "ICMP"}]}], "restartPolicy": "Maybe"}),
    );
    let errors = errors_of(&v);
    assert!(
        errors[0].starts_with("spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label"),
        "{errors:?}"
    );
    assert_eq!(
        errors[1..],
        [
            "spec.containers[0].image: Required value",
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            "spec.containers[1].image: Invalid value: \"x \": must not have leading or trailing whitespace",
            "spec.containers[2].ports[0].containerPort: Required value",
            "spec.containers[2].ports[1].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[2].name: Duplicate value: \"b\"",
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ]
    );
}

#[test]
fn mounts_env_probes_and_resources_are_checked() {
    let v = pod(json!({"containers": [{"name": "a", "image": "x",
        "env": [{"name": "A=B"}, {"name": "C", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}],
        "volumeMounts": [{"name": "nope", "mountPath": "/v"}, {"name": "v", "mountPath": "/v", "subPath": "../x"}],
        "livenessProbe": {"httpGet": {"port": 0}, "exec": {"command": ["a"]}, "successThreshold": 2, "periodSeconds": -1},
        "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi", "cpu": "-1", "gpus": "1"}}}],
        "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}, {"name": "v", "hostPath": {"path": ""}}, {"name": "w", "emptyDir": {}}]}));
    let errors = errors_of(&v);
    let has = |wanted: &str| assert!(errors.iter().any(|e| e.starts_with(wanted)), "{wanted}\n{errors:#?}");
    has("spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type");
    has("spec.volumes[1].hostPath.path: Required value");
    has("spec.containers[0].env[0].name: Invalid value: \"A=B\"");
    has("spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty");
    has(
        "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath",
    );
    has("spec.containers[0].volumeMounts[0].name: Not found: \"nope\"");
    has("spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique");
    has("spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'");
    has("spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type");
    has("spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1");
    has("spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0");
    has(
        "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi",
    );
    has("spec.containers[0].resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0");
    for detail in ["must be a standard resource type or fully qualified", "must be a standard resource for containers"]
    {
        has(&format!("spec.containers[0].resources.requests[gpus]: Invalid value: \"gpus\": {detail}"));
    }
}

#[test]
fn scheduling_is_checked() {
    let v = pod(json!({"containers": [{"name": "a", "image": "x"}],
        "tolerations": [{"value": "x"}, {"key": "k", "operator": "Exists", "value": "v"}, {"key": "k", "effect": "Never"}],
        "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "X"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "k", "operator": "In"}]}]}}}}));
    let errors = errors_of(&v);
    let has = |wanted: &str| assert!(errors.iter().any(|e| e.starts_with(wanted)), "{wanted}\n{errors:#?}");
    has("spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty");
    has("spec.tolerations[1].operator: Invalid value: {");
    has("spec.tolerations[2].effect: Unsupported value: \"Never\"");
    has("spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero");
    has("spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty");
    has(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value",
    );
}

#[test]
fn only_images_and_a_few_more_may_change() {
    let old = simple();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = "x:2".into();
    new["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    new["spec"]["activeDeadlineSeconds"] = 5.into();
    assert_eq!(update_errors(&new, &old, None), Vec::<String>::new());
    let mut new = old.clone();
    new["spec"]["hostname"] = "h".into();
    let errors = update_errors(&new, &old, None);
    assert!(
        errors[0]
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{errors:?}"
    );
    assert!(errors[0].ends_with("fields that differ: hostname"), "{errors:?}");
    let mut new = old.clone();
    new["spec"]["containers"] = json!([]);
    assert_eq!(
        update_errors(&new, &old, None),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let mut tolerant = old.clone();
    tolerant["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    let text = "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds";
    assert_eq!(update_errors(&old, &tolerant, None), [text]);
}

#[test]
fn an_ended_container_stays_ended() {
    let mut old = simple();
    old["spec"]["restartPolicy"] = "Never".into();
    old["status"] = json!({"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0}}}]});
    let mut new = old.clone();
    new["status"] = json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}], "podIPs": [{"ip": "nope"}]});
    assert_eq!(
        update_errors(&new, &old, Some("status")),
        [
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs[0]: Invalid value: \"nope\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ]
    );
}

#[test]
fn status_of_a_pod_in_words() {
    let now = "2026-01-01T00:10:00Z".parse().unwrap();
    let cells = |status: Value, deleted: bool| {
        let mut v = simple();
        v["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "j"}]);
        v["status"] = status;
        if deleted {
            v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let row = cells::cells(&v, now);
        assert_eq!(row.len(), COLUMNS.len());
        format!("{} {} {}", row[1].as_str().unwrap(), row[2].as_str().unwrap(), row[3].as_str().unwrap())
    };
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "a", "ready": true, "restartCount": 3,
        "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}}}]});
    assert_eq!(cells(json!({"phase": "Pending"}), false), "0/1 Pending 0");
    assert_eq!(cells(running.clone(), false), "1/1 Running 3 (5m ago)");
    assert_eq!(cells(running, true), "1/1 Terminating 3 (5m ago)");
    let waiting = |reason: &str| json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 1, "state": {"waiting": {"reason": reason}}}]});
    assert_eq!(cells(waiting("CrashLoopBackOff"), false), "0/1 CrashLoopBackOff 1");
    let ended = |reason: &str, code: i32, signal: i32| json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": reason, "exitCode": code, "signal": signal}}}]});
    assert_eq!(cells(ended("Completed", 0, 0), false), "0/1 Completed 0");
    assert_eq!(cells(ended("", 3, 0), false), "0/1 ExitCode:3 0");
    assert_eq!(cells(ended("", 137, 9), true), "0/1 Signal:9 0");
    let init = |first: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": first}, {"name": "j", "state": {}}]});
    assert_eq!(cells(init(json!({"running": {}})), false), "0/1 Init:0/2 0");
    assert_eq!(cells(init(json!({"terminated": {"exitCode": 0}})), false), "0/1 Init:1/2 0");
    assert_eq!(cells(init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), false), "0/1 Init:Error 0");
    assert_eq!(cells(init(json!({"waiting": {"reason": "ErrImagePull"}})), false), "0/1 Init:ErrImagePull 0");
    let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
    assert_eq!(cells(gated, false), "0/1 SchedulingGated 0");
    assert_eq!(cells(json!({"phase": "Failed", "reason": "Evicted"}), false), "0/1 Evicted 0");
}

#[test]
fn ephemeral_containers_are_only_added() {
    let mut old = simple();
    old["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "x"}]);
    let mut new = simple();
    new["spec"]["hostname"] = "ignored".into();
    prepare_update(&mut new, &old, Some("ephemeralcontainers"));
    assert_eq!(new["spec"].get("hostname"), None);
    assert_eq!(
        update_errors(&new, &old, Some("ephemeralcontainers")),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"]
    );
}
