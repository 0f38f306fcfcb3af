//! What each kind refuses, prints and fills, seen from outside through its row.

use crate::{Registry, Resource};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

fn row(kind: &str) -> Arc<Resource> {
    Registry::builtin().iter().find(|r| r.kind == kind).cloned().unwrap()
}

/// The object of this kind with a good name, defaults and everything a create adds.
pub(super) fn made(kind: &str, body: Value) -> (Arc<Resource>, Value) {
    let r = row(kind);
    let mut v = json!({"apiVersion": r.api_version(), "kind": kind, "metadata": {"name": "n", "uid": "u",
        "creationTimestamp": "2026-01-01T00:00:00Z"}});
    if r.namespaced {
        v["metadata"]["namespace"] = "d".into();
    }
    for (k, part) in body.as_object().unwrap() {
        v[k] = part.clone();
    }
    assert_eq!(r.normalize(&mut v).unwrap(), Vec::<String>::new(), "{kind}: the test's own object");
    let status = v.get("status").cloned();
    r.default(&mut v);
    r.prepare_create(&mut v);
    if let Some(status) = status.filter(|_| r.hooks.status_reset) {
        v["status"] = status;
    }
    (r, v)
}

pub(super) fn errors(kind: &str, body: Value) -> Vec<String> {
    let (r, v) = made(kind, body);
    r.validate(&v).iter().map(ToString::to_string).collect()
}

pub(super) fn update_errors(kind: &str, old: Value, new: Value) -> Vec<String> {
    let (r, old) = made(kind, old);
    let (_, mut new) = made(kind, new);
    r.prepare_update(&mut new, &old, None);
    r.validate_update(&new, &old, None).iter().map(ToString::to_string).collect()
}

pub(super) fn cells(kind: &str, body: Value) -> Vec<String> {
    let (r, v) = made(kind, body);
    let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
    r.cells(&v, now).iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect()
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}

fn workload(extra: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template()});
    for (k, v) in extra.as_object().unwrap() {
        spec[k] = v.clone();
    }
    json!({"spec": spec})
}

pub(super) const NOTHING: [&str; 0] = [];

#[test]
fn workloads() {
    for kind in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        assert_eq!(errors(kind, workload(json!({}))), NOTHING, "{kind}");
        let none = errors(kind, json!({"spec": {"template": template()}}));
        let unmatched =
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`";
        let asked = ["spec.selector: Required value", unmatched];
        assert_eq!(none, if kind == "DaemonSet" { &asked[1..] } else { &asked }, "{kind}");
        let bare = errors(kind, json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}));
        assert_eq!(
            bare,
            [&unmatched.replace("{\"a\":\"b\"}", "null"), "spec.template.spec.containers: Required value"],
            "{kind}"
        );
        let always = errors(
            kind,
            workload(json!({"template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}})),
        );
        assert_eq!(
            always,
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            "{kind}"
        );
    }
    let controller = json!({"spec": {"template": template()}});
    assert_eq!(errors("ReplicationController", controller.clone()), NOTHING);
    let (_, v) = made("ReplicationController", controller);
    assert_eq!((&v["spec"]["selector"], &v["metadata"]["labels"]), (&json!({"a": "b"}), &json!({"a": "b"})));
    assert_eq!(
        errors("ReplicaSet", workload(json!({"replicas": -1}))),
        ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    );
}

#[test]
fn strategies() {
    let (_, v) = made("Deployment", workload(json!({})));
    assert_eq!(
        v["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!((&v["spec"]["revisionHistoryLimit"], &v["spec"]["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
    let rolling = |max: Value, surge: Value| {
        errors(
            "Deployment",
            workload(json!({"strategy": {"rollingUpdate": {"maxUnavailable": max, "maxSurge": surge}}})),
        )
    };
    assert_eq!(
        rolling(json!(0), json!("0%")),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]
    );
    assert_eq!(
        rolling(json!("101%"), json!(1)),
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]
    );
    let both = json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}, "minReadySeconds": 600});
    assert_eq!(
        errors("Deployment", workload(both)),
        [
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ]
    );
    let (_, v) = made("DaemonSet", workload(json!({})));
    assert_eq!(
        v["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
    );
    let (_, v) = made("StatefulSet", workload(json!({})));
    assert_eq!(v["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
    let renamed =
        update_errors("StatefulSet", workload(json!({"serviceName": "a"})), workload(json!({"serviceName": "b"})));
    assert!(
        renamed[0]
            .starts_with("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals',")
    );
}

#[test]
fn workloads_print() {
    let mut v = workload(json!({"replicas": 3}));
    v["status"] = json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 1});
    assert_eq!(cells("ReplicaSet", v.clone()), ["n", "3", "3", "2", "5m", "c", "x:1", "a=b"]);
    assert_eq!(cells("StatefulSet", v.clone()), ["n", "2/3", "5m", "c", "x:1"]);
    v["status"]["updatedReplicas"] = 3.into();
    assert_eq!(cells("Deployment", v), ["n", "2/3", "3", "1", "5m", "c", "x:1", "a=b"]);
    let owned = json!({"data": {}, "revision": 4, "metadata": {"name": "n", "namespace": "d",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x", "uid": "u", "controller": true}]}});
    assert_eq!(cells("ControllerRevision", owned)[..3], ["n", "daemonset.apps/x", "4"]);
}

#[test]
fn nodes_and_namespaces() {
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "",
            "node-role.kubernetes.io/b": "", "kubernetes.io/role": "a"}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1", "osImage": "Debian"}}});
    let row = cells("Node", node);
    assert_eq!(row[1..3], ["NotReady,SchedulingDisabled", "a,b,control-plane"]);
    assert_eq!(row[4..], ["v1", "10.0.0.1", "<none>", "Debian", "<unknown>", "<unknown>"]);
    let bad = json!({"spec": {"podCIDRs": ["10.0.0.0/33"], "taints": [{"key": "a", "effect": "Maybe"}]}});
    assert_eq!(
        errors("Node", bad),
        [
            "metadata.taints[0].effect: Unsupported value: \"Maybe\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            "spec.podCIDRs[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ]
    );
    let (before, after) =
        (json!({"spec": {"podCIDRs": ["10.0.0.0/24"]}}), json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}));
    assert_eq!(
        update_errors("Node", before, after),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
    let (r, v) = made("Node", json!({"status": {"capacity": {"cpu": "2"}}}));
    assert_eq!(v["status"]["allocatable"], json!({"cpu": "2"}), "a node keeps the status it registers with");
    assert_eq!(r.validate(&v), []);

    let (r, v) = made("Namespace", json!({}));
    assert_eq!(v["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(
        (&v["status"], &v["metadata"]["labels"]),
        (&json!({"phase": "Active"}), &json!({"kubernetes.io/metadata.name": "n"}))
    );
    let mut new = v.clone();
    new["spec"] = json!({});
    r.prepare_update(&mut new, &v, None);
    assert_eq!(new["spec"], v["spec"], "finalizers change only through finalize");
    new["spec"] = json!({"finalizers": ["mine"]});
    let refused: Vec<String> = r.validate_update(&new, &v, Some("finalize")).iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "spec.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
}

#[test]
fn configuration() {
    assert_eq!(
        errors("ConfigMap", json!({"data": {"a": "b"}, "binaryData": {"a": "QQ=="}})),
        ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
    );
    let large = errors("ConfigMap", json!({"data": {"a": "x".repeat(1_048_577)}}));
    assert_eq!(large, ["[]: Too long: may not be more than 1048576 bytes"]);
    assert_eq!(
        errors("Secret", json!({"type": "kubernetes.io/service-account-token"})),
        ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
    );
    assert_eq!(
        errors("Secret", json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "c"}})),
        ["data[tls.key]: Required value"]
    );
    let docker =
        errors("Secret", json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "x"}}));
    assert!(
        docker[0].starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": "),
        "{docker:?}"
    );
    assert_eq!(
        update_errors("Secret", json!({"type": "a/b"}), json!({"type": "c/d"})),
        ["type: Invalid value: \"c/d\": field is immutable"]
    );
    assert_eq!(cells("Secret", json!({"stringData": {"a": "b", "c": "d"}})), ["n", "Opaque", "2", "5m"]);
    assert_eq!(cells("ConfigMap", json!({"data": {"a": "b"}, "binaryData": {"c": "QQ=="}})), ["n", "2", "5m"]);
}

#[test]
fn roles_and_bindings() {
    let rules = |rules: Value| json!({"rules": rules});
    let all = rules(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
    assert_eq!(errors("Role", all.clone()), NOTHING);
    assert_eq!(errors("ClusterRole", all), NOTHING);
    assert_eq!(
        errors("Role", rules(json!([{"verbs": [], "apiGroups": [""]}, {"verbs": ["get"], "nonResourceURLs": ["/"]}]))),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            "rules[1].nonResourceURLs: Invalid value: [\"/\"]: namespaced rules cannot apply to non-resource URLs",
        ]
    );
    let binding = |kind: &str, subject: Value| json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "r"}, "subjects": [subject]});
    let user = json!({"kind": "User", "name": "u"});
    assert_eq!(errors("RoleBinding", binding("Role", user.clone())), NOTHING);
    assert_eq!(
        errors("ClusterRoleBinding", binding("Role", json!({"kind": "ServiceAccount", "name": "s"}))),
        [
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].namespace: Required value",
        ]
    );
    let changed = update_errors("RoleBinding", binding("Role", user.clone()), binding("ClusterRole", user));
    assert_eq!(changed.len(), 1);
    assert!(changed[0].starts_with("roleRef: Invalid value: ") && changed[0].ends_with(": cannot change roleRef"));
    let account = json!({"kind": "ServiceAccount", "name": "s", "namespace": "x"});
    assert_eq!(cells("RoleBinding", binding("ClusterRole", account)), ["n", "ClusterRole/r", "5m", "", "", "x/s"]);
    let (_, v) = made("RoleBinding", json!({"metadata": {"name": "system:a:b", "namespace": "d"}, "roleRef": {}}));
    assert!(
        !row("RoleBinding").validate(&v).iter().any(|e| e.path.as_str() == "metadata.name"),
        "colons are fine here"
    );
}

#[test]
fn volumes_and_claims() {
    let claim = |size: &str, extra: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        for (k, v) in extra.as_object().unwrap() {
            spec[k] = v.clone();
        }
        json!({"spec": spec})
    };
    assert_eq!(errors("PersistentVolumeClaim", claim("1Gi", json!({}))), NOTHING);
    assert_eq!(
        errors("PersistentVolumeClaim", json!({"spec": {}})),
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ]
    );
    let class = |name: &str| claim("1Gi", json!({"storageClassName": name}));
    let given = update_errors("PersistentVolumeClaim", claim("1Gi", json!({})), class("x"));
    assert_eq!(given, NOTHING, "a claim made before there was a default class gets it");
    let changed = update_errors("PersistentVolumeClaim", class("y"), class("x"));
    assert!(
        changed[0].starts_with("spec: Forbidden: spec is immutable after creation except resources.requests"),
        "{changed:?}"
    );
    assert_eq!(
        update_errors("PersistentVolumeClaim", claim("1Gi", json!({})), claim("1Gi", json!({"volumeName": "v"}))),
        NOTHING,
        "binding a claim is allowed"
    );
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "hostPath": {"path": "/x"}, "claimRef": {"namespace": "a", "name": "b"}}});
    assert_eq!(errors("PersistentVolume", volume.clone()), NOTHING);
    assert_eq!(
        cells("PersistentVolume", volume),
        ["n", "1Gi", "RWO,ROX", "Retain", "Pending", "a/b", "", "<unset>", "", "5m", "Filesystem"]
    );
    assert_eq!(
        errors("PersistentVolume", json!({"spec": {"accessModes": ["x"]}})),
        [
            "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \
         \"ReadWriteOncePod\"",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
            "spec: Required value: must specify a volume type",
        ]
    );
}

#[test]
fn jobs() {
    let job = |spec: Value| json!({"spec": spec});
    let pods = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}});
    assert_eq!(errors("Job", job(json!({"template": pods}))), NOTHING);
    let (_, v) = made("Job", job(json!({"template": pods})));
    assert_eq!(v["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(v["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "n");
    assert_eq!(v["spec"]["backoffLimit"], 6);
    let rules = json!([{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]);
    let (r, v) = made("Job", job(json!({"template": pods, "podFailurePolicy": {"rules": rules}})));
    assert!(r.validate(&v).is_empty());
    assert_eq!(v["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"], "True");
    assert_eq!(
        errors("Job", job(json!({"template": template()}))),
        ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
    );
    let cron = |schedule: &str| json!({"spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": pods}}}});
    assert_eq!(errors("CronJob", cron("*/5 * * * *")), NOTHING);
    assert_eq!(
        errors("CronJob", cron("* *")),
        ["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"]
    );
    let mut done = job(json!({"template": pods}));
    done["status"] = json!({"succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:42Z",
        "conditions": [{"type": "Complete", "status": "True"}]});
    assert_eq!(cells("Job", done)[..5], ["n", "Complete", "1/1", "42s", "5m"]);
    assert_eq!(cells("CronJob", cron("@daily"))[..7], ["n", "@daily", "<none>", "False", "0", "<none>", "5m"]);
}

#[test]
fn networks_and_limits() {
    let (_, v) = made("NetworkPolicy", json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}}));
    assert_eq!((&v["spec"]["policyTypes"], &v["spec"]["podSelector"]), (&json!(["Ingress", "Egress"]), &json!({})));
    assert_eq!(v["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    let (_, v) = made(
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}}),
    );
    let item = &v["spec"]["limits"][0];
    assert_eq!(
        (&item["default"], &item["defaultRequest"]),
        (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"}))
    );
    assert_eq!(
        errors("LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}})),
        ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
    );
    assert_eq!(cells("Lease", json!({"spec": {"holderIdentity": "me"}})), ["n", "me", "5m"]);
    assert_eq!(
        errors("Lease", json!({"spec": {"leaseDurationSeconds": 0}})),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
}

#[test]
fn an_approver_writes_conditions_and_nothing_else() {
    let (r, old) =
        made("CertificateSigningRequest", json!({"spec": {"request": "QQ==", "signerName": "a/b", "usages": ["any"]}}));
    let mut new = old.clone();
    new["spec"]["signerName"] = "c/d".into();
    new["status"] = json!({"certificate": "QQ==", "conditions": [{"type": "Approved", "status": "True"}]});
    r.prepare_update(&mut new, &old, Some("approval"));
    assert_eq!(new["spec"], old["spec"]);
    assert_eq!(new["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    let condition = &new["status"]["conditions"][0];
    assert_eq!((&condition["type"], condition["lastTransitionTime"].is_string()), (&json!("Approved"), true));
    assert_eq!(r.cells(&new, Timestamp::UNIX_EPOCH).last().unwrap(), "Approved");
}

#[test]
fn finalizers_and_owners_are_named_in_full() {
    let found = |kind: &str, extra: Value| {
        let mut metadata = json!({"name": "n", "namespace": "d", "uid": "u"});
        metadata.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap());
        errors(kind, json!({"metadata": metadata}))
    };
    let none = Vec::<String>::new();
    let finalizers = |names: &[&str]| json!({"finalizers": names});
    assert_eq!(found("ConfigMap", finalizers(&["kubernetes", "orphan", "a.b/c"])), none);
    assert_eq!(
        found("ConfigMap", finalizers(&["mine"])),
        [
            "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
    assert_eq!(found("Lease", finalizers(&["mine"])), none, "as upstream, which checks these more loosely");
    let owner = json!({"ownerReferences": [{"apiVersion": "a/b/c", "kind": "K", "name": "n", "uid": ""}]});
    assert_eq!(
        found("ConfigMap", owner),
        [
            "metadata.ownerReferences[0].apiVersion: Invalid value: \"a/b/c\": must be <group>/<version> or <version>",
            "metadata.ownerReferences[0].uid: Required value: must not be empty",
        ]
    );
}
