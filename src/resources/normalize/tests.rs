use super::*;
use proptest::prelude::*;
use serde_json::json;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

fn normal(definition: &str, mut object: Value) -> (Value, Vec<String>) {
    let unknown = normalize(definition, &mut object).expect("types fit");
    (object, unknown)
}

fn refusal(definition: &str, mut object: Value) -> String {
    let status = normalize(definition, &mut object).expect_err("types do not fit");
    assert_eq!(status.code, 400);
    status.message
}

#[test]
fn unknown_fields_are_pruned_and_told() {
    let (pod, unknown) = normal(
        POD,
        json!({"apiVersion": "v1", "kind": "Pod", "extra": 1,
               "metadata": {"name": "a", "labels": {"x.y/z": "1"}, "clusterName": ""},
               "spec": {"containers": [{"name": "c"}, {"name": "d", "imagee": "x", "ports": [{"port": 1}]}],
                        "nodeSelector": {"any": "key"}}}),
    );
    assert_eq!(
        unknown,
        [
            "unknown field \"extra\"",
            "unknown field \"metadata.clusterName\"",
            "unknown field \"spec.containers[1].imagee\"",
            "unknown field \"spec.containers[1].ports[0].port\"",
        ]
    );
    assert_eq!(
        pod,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x.y/z": "1"}},
               "spec": {"containers": [{"name": "c"}, {"name": "d", "ports": [{}]}], "nodeSelector": {"any": "key"}}})
    );
}

#[test]
fn nulls_and_empty_lists_and_maps_go() {
    let (pod, unknown) = normal(
        POD,
        json!({"metadata": {"creationTimestamp": null, "labels": {}, "finalizers": [], "annotations": {"a": null}},
               "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [null],
                        "nodeName": ""}, "status": null}),
    );
    assert!(unknown.is_empty());
    assert_eq!(
        pod,
        json!({"metadata": {"annotations": {"a": ""}},
               "spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{}], "nodeName": ""}})
    );
}

#[test]
fn values_get_their_canonical_form() {
    let (pod, _) = normal(
        POD,
        json!({"metadata": {"creationTimestamp": "2026-01-02T05:04:05.5+02:00"},
               "spec": {"containers": [{"resources": {"requests": {"cpu": 0.5, "memory": " 1024Mi ", "x": null}},
                                        "livenessProbe": {"httpGet": {"port": "http"}, "tcpSocket": {"port": 80}}}]}}),
    );
    assert_eq!(
        pod,
        json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"},
               "spec": {"containers": [{"resources": {"requests": {"cpu": "500m", "memory": "1Gi", "x": "0"}},
                                        "livenessProbe": {"httpGet": {"port": "http"}, "tcpSocket": {"port": 80}}}]}})
    );
    let (lease, _) = normal("io.k8s.api.coordination.v1.Lease", json!({"spec": {"renewTime": "2026-01-02T03:04:05Z"}}));
    assert_eq!(lease, json!({"spec": {"renewTime": "2026-01-02T03:04:05.000000Z"}}));
    let (secret, _) = normal("io.k8s.api.core.v1.Secret", json!({"data": {"a": "aGVs\nbG8=", "b": ""}}));
    assert_eq!(secret, json!({"data": {"a": "aGVsbG8=", "b": ""}}));
}

#[test]
fn wrong_types_are_told_in_gos_words() {
    let told = |spec: Value| refusal(DEPLOYMENT, json!({"spec": spec}));
    let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (spec, message) in [
        (
            json!({"replicas": "3"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 3_000_000_000_u64}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"paused": "yes"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            json!({"selector": []}),
            "json: cannot unmarshal array into Go struct field DeploymentSpec.spec.selector of type v1.LabelSelector",
        ),
        (
            json!({"selector": {"matchLabels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field LabelSelector.spec.selector.matchLabels of type string",
        ),
        (
            json!({"template": {"spec": {"containers": {}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"template": {"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}}),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            json!({"template": {"spec": {"nodeSelector": "x"}}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.nodeSelector of type map[string]string",
        ),
        (
            json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "much"}}}]}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": true}}}),
            "json: cannot unmarshal bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
        ),
    ] {
        assert_eq!(told(spec), format!("{prefix}{message}"));
    }
    assert_eq!(
        refusal("io.k8s.api.core.v1.Secret", json!({"data": {"a": "a?=="}})),
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 1"
    );
    assert_eq!(
        refusal(POD, json!([])),
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal array into Go value of type v1.Pod"
    );
    assert!(refusal(POD, json!({"metadata": {"creationTimestamp": "now"}})).contains("parsing time \"now\""));
}

#[test]
fn strategic_merge_knows_the_schema() {
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}],
                              "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}]}});
    let patch = json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}],
                                "$setElementOrder/volumes": [{"name": "v"}],
                                "volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}],
                                "tolerations": [{"key": "l"}]}});
    let merged = strategic_merge(POD, &pod, &patch).expect("applies");
    assert_eq!(
        merged,
        json!({"spec": {"containers": [{"name": "a", "image": "2",
                                        "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}],
                        "volumes": [{"name": "v", "configMap": {"name": "c"}}], "tolerations": [{"key": "l"}]}})
    );
    let meta = json!({"metadata": {"finalizers": ["a"], "labels": {"x": "1"}, "ownerReferences": [{"uid": "1", "name": "n"}]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "labels": {"x": null, "y": "2"},
                                    "ownerReferences": [{"uid": "1", "$patch": "delete"}]}});
    let merged = strategic_merge("io.k8s.api.core.v1.ConfigMap", &meta, &patch).expect("applies");
    assert_eq!(merged, json!({"metadata": {"finalizers": [], "labels": {"y": "2"}, "ownerReferences": []}}));
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(strategic_merge("io.k8s.api.core.v1.Node", &status, &patch).expect("applies"), patch);
}

fn loose_pod() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        (-2.0..2.0).prop_map(Value::from),
        prop::sample::select(vec!["", "1", "1Gi", "2026-01-02T03:04:05Z", "aGk="]).prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "metadata",
        "labels",
        "creationTimestamp",
        "spec",
        "containers",
        "resources",
        "limits",
        "name",
        "ports",
        "containerPort",
        "hostNetwork",
        "volumes",
        "emptyDir",
        "status",
        "unknown",
    ]);
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            3 => prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn normalizing_twice_changes_nothing_more(pod in loose_pod()) {
        let mut once = pod;
        if normalize(POD, &mut once).is_ok() {
            let mut twice = once.clone();
            prop_assert_eq!(normalize(POD, &mut twice), Ok(vec![]));
            prop_assert_eq!(once, twice);
        }
    }
}
