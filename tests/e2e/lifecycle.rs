//! Containers from start to end: probes, init containers, hooks, back-off.

use crate::cluster::{Cluster, until};
use std::time::{Duration, Instant};

pub(crate) fn probes(cluster: &Cluster, space: &str) {
    cluster.create(
        space,
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "touch /tmp/alive; echo ok > /www/ready; exec httpd -f -p 8080 -h /www"]
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 30}
    readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {exec: {command: [test, -e, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2}
"#,
    );
    cluster.kubectl(space, &["expose", "pod/web", "--port=80", "--target-port=8080"]);
    cluster.ready(space, "web");
    let ready = || cluster.field(space, "pod/web", ".status.containerStatuses[0].ready");
    cluster.sh(space, "web", "rm /www/ready");
    until("not ready", || ready() == "false");
    until("no endpoint", || cluster.field(space, "endpoints/web", ".subsets[0].addresses").is_empty());
    cluster.sh(space, "web", "echo ok > /www/ready");
    until("ready again", || ready() == "true");
    assert_eq!(cluster.field(space, "pod/web", ".status.containerStatuses[0].restartCount"), "0");
    cluster.sh(space, "web", "rm /tmp/alive");
    until("a restart", || cluster.field(space, "pod/web", ".status.containerStatuses[0].restartCount") == "1");
    cluster.ready(space, "web");
    let events = cluster.kubectl(space, &["get", "events", "--field-selector", "involvedObject.name=web"]);
    for reason in ["Scheduled", "Started", "Unhealthy", "Killing"] {
        assert!(events.contains(reason), "{reason} in {events}");
    }
}

pub(crate) fn init(cluster: &Cluster, space: &str) {
    cluster.create(space, r#"
apiVersion: v1
kind: Pod
metadata: {name: steps}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  initContainers:
  - {name: first, image: IMAGE, command: [sh, -c, "echo 1 >> /work/steps"], volumeMounts: [{name: work, mountPath: /work}]}
  - {name: second, image: IMAGE, command: [sh, -c, "echo 2 >> /work/steps"], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
  - {name: main, image: IMAGE, command: [cat, /work/steps], volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: stuck}
spec:
  restartPolicy: Never
  initContainers: [{name: first, image: IMAGE, command: ["false"]}]
  containers: [{name: main, image: IMAGE, command: [sleep, "1000000"]}]
"#);
    until("the pod to succeed", || cluster.field(space, "pod/steps", ".status.phase") == "Succeeded");
    assert_eq!(cluster.kubectl(space, &["logs", "steps", "-c", "main"]), "1\n2\n");
    until("the other to fail", || cluster.field(space, "pod/stuck", ".status.phase") == "Failed");
    let table = cluster.kubectl(space, &["get", "pods"]);
    assert!(table.contains("Completed") && table.contains("Init:Error"), "{table}");
}

pub(crate) fn hooks(cluster: &Cluster, space: &str) {
    let host = cluster.directory().join(format!("host-{space}"));
    std::fs::create_dir_all(&host).unwrap();
    let manifest = r#"
apiVersion: v1
kind: Pod
metadata: {name: polite}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "trap 'echo term >> /host/story; sleep 1; echo end >> /host/story; exit 0' TERM; while :; do sleep 1 & wait $!; done"]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo start >> /host/story"]}}
      preStop: {exec: {command: [sh, -c, "echo stop >> /host/story; sleep 1"]}}
    volumeMounts: [{name: host, mountPath: /host}]
  volumes: [{name: host, hostPath: {path: HOST}}]
"#;
    cluster.create(space, &manifest.replace("HOST", host.to_str().unwrap()));
    cluster.ready(space, "polite");
    let begun = Instant::now();
    cluster.kubectl(space, &["delete", "pod", "polite"]);
    assert!(begun.elapsed() < Duration::from_secs(15), "it ends by itself before its grace is over");
    assert_eq!(std::fs::read_to_string(host.join("story")).unwrap(), "start\nstop\nterm\nend\n");

    // One that ignores SIGTERM is killed when its grace is over.
    cluster.pod(space, "deaf", r#"command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]"#);
    let begun = Instant::now();
    cluster.kubectl(space, &["delete", "pod", "deaf", "--grace-period=2"]);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(10), "{took:?}");
}

pub(crate) fn crash(cluster: &Cluster, space: &str) {
    cluster.create(space, &crate::cluster::pod("crash", "command: [sh, -c, \"echo dying; exit 3\"]"));
    until("back-off", || {
        cluster.field(space, "pod/crash", ".status.containerStatuses[0].state.waiting.reason") == "CrashLoopBackOff"
    });
    assert_eq!(cluster.field(space, "pod/crash", ".status.containerStatuses[0].lastState.terminated.exitCode"), "3");
    assert!(cluster.kubectl(space, &["get", "pods"]).contains("CrashLoopBackOff"));
    assert!(cluster.kubectl(space, &["describe", "pod", "crash"]).contains("Back-off restarting failed container"));
    for arguments in [&["logs", "crash"][..], &["logs", "crash", "--previous"]] {
        assert_eq!(cluster.kubectl(space, arguments), "dying\n", "{arguments:?}");
    }
}

pub(crate) fn missing_image(cluster: &Cluster, space: &str) {
    let manifest =
        crate::cluster::pod("lost", "command: [sh]\nimagePullPolicy: Never").replace("IMAGE", "mini.test/nothing:1");
    cluster.create(space, &manifest);
    until("the reason", || {
        cluster.field(space, "pod/lost", ".status.containerStatuses[0].state.waiting.reason") == "ErrImageNeverPull"
    });
    let manifest = crate::cluster::pod("away", "command: [sh]").replace("IMAGE", "127.0.0.1:1/nothing:1");
    cluster.create(space, &manifest);
    until("the reason", || {
        let reason = cluster.field(space, "pod/away", ".status.containerStatuses[0].state.waiting.reason");
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    });
    cluster.kubectl(space, &["delete", "pods", "--all"]);
}

/// Pods that somebody bound to a node that cannot have them.
pub(crate) fn refused(cluster: &Cluster, space: &str) {
    let bound = |name: &str, spec: &str, inside: &str| {
        let pod = crate::cluster::pod(name, &format!("command: [sleep, \"1000000\"]\n{inside}"));
        cluster.create(space, &pod.replace("spec:\n", &format!("spec:\n  nodeName: e2e\n  {spec}\n")));
        until("its refusal", || cluster.field(space, &format!("pod/{name}"), ".status.phase") == "Failed");
        let field = |path: &str| cluster.field(space, &format!("pod/{name}"), path);
        (field(".status.reason"), field(".status.message"))
    };
    let (reason, message) = bound("elsewhere", "nodeSelector: {disk: floppy}", "");
    assert_eq!(reason, "NodeAffinity");
    assert!(message.starts_with("Pod was rejected: Predicate NodeAffinity failed"), "{message}");
    let (reason, message) = bound("huge", "hostNetwork: false", "resources: {requests: {memory: 900Ti}}");
    assert_eq!(reason, "OutOfmemory", "{message}");
    let events = cluster.kubectl(space, &["get", "events"]);
    assert!(events.contains("NodeAffinity") && events.contains("OutOfmemory"), "{events}");
    assert!(cluster.kubectl(space, &["get", "pods"]).contains("NodeAffinity"));
    let events = cluster.kubectl("default", &["get", "events", "--field-selector", "involvedObject.kind=Node"]);
    for reason in ["Starting", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"]
    {
        assert!(events.contains(reason), "{reason} in {events}");
    }
}
