use super::*;
use serde_json::json;

fn standard(text: &str) -> Standard {
    let (name, at) = text.split_once(':').unwrap();
    Standard { level: level(name).unwrap(), version: version(at).unwrap() }
}

/// What is said of a pod with one container `c`, to whose security context, to itself, and to whose spec is added.
fn told(at: &str, container: Value, spec: Value) -> String {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    let add = |to: &mut Value, from: Value| {
        for (field, value) in from.as_object().cloned().unwrap_or_default() {
            to[field] = value;
        }
    };
    add(&mut pod["spec"]["containers"][0], container);
    if let Some(annotations) = spec.get("annotations") {
        pod["metadata"]["annotations"] = annotations.clone();
    }
    add(&mut pod["spec"], spec);
    checks::details(&checks::violations(standard(at), &pod))
}

/// What the restricted level asks for.
fn confined() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"}})
}

fn confined_with(field: &str, value: Value) -> Value {
    let mut context = confined();
    context[field] = value;
    json!({"securityContext": context})
}

#[test]
fn restricted_in_upstreams_words() {
    let all = "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
        unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
        runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
        seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert_eq!(told("restricted:latest", json!({}), json!({})), all);
    assert_eq!(told("baseline:latest", json!({}), json!({})), "");
    assert_eq!(told("restricted:latest", json!({"securityContext": confined()}), json!({})), "");
    let pod = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "Localhost"}}});
    let container = json!({"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    assert_eq!(told("restricted:latest", container, pod), "");
}

#[test]
fn every_check_of_the_baseline() {
    let context = |field: &str, value: Value| json!({"securityContext": {field: value}});
    let nothing = || json!({});
    let rows: [(&str, Value, Value, &str); 24] = [
        (
            "latest",
            context("privileged", json!(true)),
            nothing(),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            "latest",
            context("capabilities", json!({"add": ["NET_RAW", "SYS_ADMIN", "CHOWN"]})),
            nothing(),
            "non-default capabilities (container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            "latest",
            nothing(),
            json!({"hostNetwork": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            "latest",
            nothing(),
            json!({"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volumes \"a\", \"b\")",
        ),
        (
            "latest",
            json!({"ports": [{"hostPort": 8080}, {"hostPort": 0}]}),
            nothing(),
            "hostPort (container \"c\" uses hostPort 8080)",
        ),
        (
            "latest",
            nothing(),
            json!({"initContainers": [{"name": "i", "ports": [{"hostPort": 9}]}],
            "ephemeralContainers": [{"name": "e", "ports": [{"hostPort": 80}]}]}),
            "hostPort (containers \"i\", \"e\" use hostPorts 80, 9)",
        ),
        (
            "latest",
            json!({"livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}),
            nothing(),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"g\", \"h\")",
        ),
        ("v1.33", json!({"livenessProbe": {"httpGet": {"host": "h"}}}), nothing(), ""),
        (
            "latest",
            context("procMount", json!("Unmasked")),
            nothing(),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        ("latest", context("procMount", json!("Unmasked")), json!({"hostUsers": false}), ""),
        (
            "v1.34",
            context("procMount", json!("Unmasked")),
            json!({"hostUsers": false}),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "latest",
            context("seLinuxOptions", json!({"type": "x_t", "user": "u", "role": "r"})),
            json!({"securityContext": {"seLinuxOptions": {"type": "y_t"}}}),
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: types \"x_t\", \"y_t\"; user may not be set; role may not be set)",
        ),
        ("latest", context("seLinuxOptions", json!({"type": "container_engine_t"})), nothing(), ""),
        (
            "v1.30",
            context("seLinuxOptions", json!({"type": "container_engine_t"})),
            nothing(),
            "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")",
        ),
        (
            "latest",
            context("seccompProfile", json!({"type": "Unconfined"})),
            nothing(),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "v1.18",
            nothing(),
            json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}),
            "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
        ),
        ("v1.19", nothing(), json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}), ""),
        (
            "latest",
            context("appArmorProfile", json!({"type": "Unconfined"})),
            nothing(),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            "latest",
            nothing(),
            json!({"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")",
        ),
        (
            "latest",
            nothing(),
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            "v1.31",
            nothing(),
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        (
            "v1.36",
            nothing(),
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_notsent_lowat"}]}}),
            "forbidden sysctls (net.ipv4.tcp_notsent_lowat)",
        ),
        ("v1.99", nothing(), json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_notsent_lowat"}]}}), ""),
        (
            "latest",
            context("windowsOptions", json!({"hostProcess": true})),
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod and container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    for (at, container, spec, expected) in rows {
        assert_eq!(
            told(&format!("baseline:{at}"), container.clone(), spec.clone()),
            expected,
            "{at} {container} {spec}"
        );
        assert_eq!(told(&format!("privileged:{at}"), container, spec), "");
    }
}

#[test]
fn every_check_that_only_restricted_has() {
    let volumes =
        json!({"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "hostPath": {}}, {"name": "c", "emptyDir": {}}]});
    let rows: [(&str, Value, Value, &str); 15] = [
        (
            "latest",
            confined_with("allowPrivilegeEscalation", json!(true)),
            json!({}),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        ("latest", confined_with("allowPrivilegeEscalation", json!(true)), json!({"os": {"name": "windows"}}), ""),
        (
            "v1.24",
            confined_with("allowPrivilegeEscalation", json!(true)),
            json!({"os": {"name": "windows"}}),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
        ),
        ("v1.7", confined_with("allowPrivilegeEscalation", json!(true)), json!({}), ""),
        (
            "latest",
            confined_with("capabilities", json!({"drop": ["KILL"], "add": ["CHOWN", "NET_BIND_SERVICE"]})),
            json!({}),
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]; \
             container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        ),
        (
            "v1.21",
            confined_with("capabilities", json!({"add": ["NET_RAW"]})),
            json!({}),
            "non-default capabilities (container \"c\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (
            "latest",
            json!({"securityContext": confined()}),
            volumes,
            "restricted volume types (volumes \"a\", \"b\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (
            "latest",
            confined_with("runAsNonRoot", json!(false)),
            json!({"securityContext": {"runAsNonRoot": false}}),
            "runAsNonRoot != true (pod and container \"c\" must not set securityContext.runAsNonRoot=false)",
        ),
        ("latest", confined_with("runAsNonRoot", json!(false)), json!({"hostUsers": false}), ""),
        (
            "latest",
            confined_with("runAsUser", json!(0)),
            json!({}),
            "runAsUser=0 (container \"c\" must not set runAsUser=0)",
        ),
        ("v1.22", confined_with("runAsUser", json!(0)), json!({}), ""),
        (
            "latest",
            confined_with("seccompProfile", json!({"type": "Unconfined"})),
            json!({}),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        ("v1.18", confined_with("seccompProfile", json!({"type": "Unconfined"})), json!({}), ""),
        (
            "latest",
            confined_with("procMount", json!("Unmasked")),
            json!({"hostUsers": false}),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        ("v1.0", json!({"securityContext": {"runAsNonRoot": true}}), json!({}), ""),
    ];
    for (at, container, spec, expected) in rows {
        assert_eq!(
            told(&format!("restricted:{at}"), container.clone(), spec.clone()),
            expected,
            "{at} {container} {spec}"
        );
    }
}

#[test]
fn labels_make_a_policy() {
    let of = |labels: Value| policy(&json!({"metadata": {"labels": labels}}));
    let label = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let rows = [
        (json!({}), "privileged:latest", "privileged:latest"),
        (json!({label("enforce"): "baseline"}), "baseline:latest", "baseline:latest"),
        (json!({label("enforce"): "baseline", label("enforce-version"): "v1.20"}), "baseline:v1.20", "baseline:v1.20"),
        (
            json!({label("enforce"): "baseline", label("warn"): "restricted", label("warn-version"): "v1.5"}),
            "baseline:latest",
            "restricted:v1.5",
        ),
        (
            json!({label("enforce"): "restricted", label("warn-version"): "v1.5"}),
            "restricted:latest",
            "restricted:v1.5",
        ),
        (
            json!({label("enforce"): "restricted", label("warn"): "privileged"}),
            "restricted:latest",
            "privileged:latest",
        ),
    ];
    for (labels, enforce, warn) in rows {
        let (policy, errors) = of(labels.clone());
        assert_eq!(
            (policy.enforce.to_string(), policy.warn.to_string()),
            (enforce.to_owned(), warn.to_owned()),
            "{labels}"
        );
        assert!(errors.is_empty());
    }
    let bad = json!({label("enforce"): "strict", label("enforce-version"): "1.2", label("audit"): "", label("warn"): "x", label("warn-version"): "v1.02"});
    let (policy, errors) = of(bad);
    assert_eq!(
        (policy.enforce.to_string(), policy.warn.to_string()),
        ("restricted:latest".into(), "privileged:latest".into())
    );
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let level = |mode: &str, value: &str| {
        let key = label(mode);
        format!("metadata.labels[{key}]: Invalid value: \"{value}\": must be one of privileged, baseline, restricted")
    };
    let version = |mode: &str, value: &str| {
        let key = label(mode);
        format!("metadata.labels[{key}]: Invalid value: \"{value}\": must be \"latest\" or \"v1.x\"")
    };
    let expected = [
        level("enforce", "strict"),
        version("enforce-version", "1.2"),
        level("audit", ""),
        level("warn", "x"),
        version("warn-version", "v1.02"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn only_other_images_make_another_pod() {
    let pod = |image: &str, debug: Value| json!({"metadata": {"labels": {"a": image}}, "spec": {"containers": [{"name": "c", "image": image}], "ephemeralContainers": debug}});
    let old = pod("a", json!([]));
    let mut labelled = old.clone();
    labelled["metadata"]["labels"]["b"] = json!("c");
    assert!(!is_significant(&labelled, &old));
    assert!(is_significant(&pod("b", json!([])), &old));
    assert!(is_significant(&pod("a", json!([{"name": "d", "image": "x"}])), &old));
}
