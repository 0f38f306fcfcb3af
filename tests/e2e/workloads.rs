//! Controllers at work: replicated pods, rollouts, healing.

use crate::cluster::{Cluster, IDLE, until};
use crate::leftovers::processes;
use std::collections::BTreeSet;
use std::process::Command;

/// The shape of the guestbook: one file of many documents, replication controllers and services, a front end that finds
/// its back end by its name.
const GUESTBOOK: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: back}
spec:
  replicas: 1
  selector: {app: back}
  template:
    metadata: {labels: {app: back}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: back
        image: IMAGE
        command: [sh, -c, "echo from the back end > /www/index.html; exec httpd -f -p 6379 -h /www"]
        ports: [{containerPort: 6379}]
---
apiVersion: v1
kind: Service
metadata: {name: back, labels: {app: back}}
spec:
  ports: [{port: 6379}]
  selector: {app: back}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: NodePort
  ports: [{port: 80}]
  selector: {app: front}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: front}
spec:
  replicas: 2
  selector: {app: front}
  template:
    metadata: {labels: {app: front}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: front
        image: IMAGE
        command:
        - sh
        - -c
        - |
          mkdir -p /www/cgi-bin
          printf '#!/bin/sh\necho Content-type: text/plain\necho\nset -- $(getent hosts back)\nwget -qO- http://$1:6379/index.html\n' > /www/cgi-bin/guests
          chmod +x /www/cgi-bin/guests
          exec httpd -f -p 80 -h /www
        ports: [{containerPort: 80}]
        resources: {requests: {cpu: 10m, memory: 16Mi}}
"#;

pub(crate) fn guestbook(cluster: &Cluster, space: &str) {
    cluster.mini(["enable", "dns"]);
    cluster.create(space, GUESTBOOK);
    for (controller, replicas) in [("rc/back", "1"), ("rc/front", "2")] {
        until(controller, || cluster.field(space, controller, ".status.readyReplicas") == replicas);
    }
    let front = cluster.field(space, "service/front", ".spec.clusterIP");
    let port = cluster.field(space, "service/front", ".spec.ports[0].nodePort");
    until("the front end's endpoints", || {
        cluster.field(space, "endpoints/front", ".subsets[0].addresses[1].ip").len() > 6
    });
    for address in [front, format!("127.0.0.1:{port}")] {
        let said = wget(&format!("http://{address}/cgi-bin/guests"));
        assert_eq!(said.trim(), "from the back end", "through {address}");
    }
    let table = cluster.kubectl(space, &["get", "rc,svc,pods"]);
    assert!(table.contains("DESIRED") && table.contains("CLUSTER-IP") && table.contains("RESTARTS"), "{table}");
    cluster.kubectl(space, &["scale", "rc/front", "--replicas=1"]);
    until("one front end", || pods(cluster, space, "app=front").len() == 1);
}

/// What a server says to this host; empty when it says nothing. (Debian's static `wget` does not survive its own `-T`.)
pub(crate) fn wget(url: &str) -> String {
    let output =
        Command::new("/bin/busybox").args(["timeout", "5", "/bin/busybox", "wget", "-qO-", url]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names of the pods that are not about to go.
fn pods(cluster: &Cluster, space: &str, selector: &str) -> BTreeSet<String> {
    let list = cluster.get(space, &["pods", "-l", selector]);
    let living = list["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    living.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: IMAGE
        env: [{name: COLOUR, value: blue}]
        command: [sh, -c, "echo $COLOUR > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"#;

pub(crate) fn deployment(cluster: &Cluster, space: &str) {
    cluster.create(space, DEPLOYMENT);
    let rolled = || cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    assert!(rolled().contains("successfully rolled out"));
    let first = pods(cluster, space, "app=web");
    assert_eq!(first.len(), 2);

    cluster.kubectl(space, &["set", "env", "deployment/web", "COLOUR=green"]);
    rolled();
    let colour = || {
        let pod = pods(cluster, space, "app=web").into_iter().next().unwrap();
        cluster.sh(space, &pod, "cat /www/index.html").trim().to_owned()
    };
    until("the old pods to go", || pods(cluster, space, "app=web").is_disjoint(&first));
    assert_eq!(colour(), "green");
    assert_eq!(cluster.get(space, &["replicasets"])["items"].as_array().unwrap().len(), 2);

    cluster.kubectl(space, &["rollout", "undo", "deployment/web"]);
    rolled();
    until("blue again", || colour() == "blue");

    cluster.kubectl(space, &["scale", "deployment/web", "--replicas=4"]);
    rolled();
    assert_eq!(pods(cluster, space, "app=web").len(), 4);
    cluster.kubectl(space, &["expose", "deployment/web", "--port=80", "--target-port=8080"]);
    let address = cluster.field(space, "service/web", ".spec.clusterIP");
    until("the exposed service", || wget(&format!("http://{address}/")).trim() == "blue");
    cluster.kubectl(space, &["scale", "deployment/web", "--replicas=0"]);
    until("no pods", || pods(cluster, space, "app=web").is_empty());
    cluster.kubectl(space, &["delete", "deployment/web"]);
    until("no replica sets", || cluster.get(space, &["replicasets"])["items"].as_array().unwrap().is_empty());
}

pub(crate) fn healing(cluster: &Cluster, space: &str) {
    let marker = format!("{}", 900_000 + std::process::id());
    cluster.kubectl(
        space,
        &["create", "deployment", "web", &format!("--image={}", crate::cluster::IMAGE), "--", "sleep", &marker],
    );
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    let pod = pods(cluster, space, "app=web").into_iter().next().unwrap();
    let running = || processes(|cmdline| cmdline.trim() == format!("sleep {marker}"));
    let killed = running();
    assert_eq!(killed.len(), 1);
    let pid = rustix::process::Pid::from_raw(killed[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("a restart", || {
        cluster.field(space, &format!("pod/{pod}"), ".status.containerStatuses[0].restartCount") == "1"
    });
    until("the new container", || running().iter().any(|pid| !killed.contains(pid)));
    let last =
        cluster.field(space, &format!("pod/{pod}"), ".status.containerStatuses[0].lastState.terminated.exitCode");
    assert_eq!(last, "137");

    cluster.kubectl(space, &["delete", "pod", &pod, "--grace-period=0", "--force"]);
    until("a replacement", || {
        let now = pods(cluster, space, "app=web");
        now.len() == 1 && !now.contains(&pod)
    });
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(space, &["delete", "deployment", "web"]);
}

pub(crate) fn apply(cluster: &Cluster, space: &str) {
    let manifest = |args: &str, labels: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {labels}}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n{args}"
        )
    };
    let container = |name: &str| format!("      - name: {name}\n        image: IMAGE\n        {IDLE}\n");
    let said = cluster.pipe(space, "apply", &manifest(&(container("one") + &container("two")), "{a: b, c: d}"));
    assert_eq!(said.trim(), "deployment.apps/web created");
    let unchanged = cluster.pipe(space, "apply", &manifest(&(container("one") + &container("two")), "{a: b, c: d}"));
    assert_eq!(unchanged.trim(), "deployment.apps/web unchanged");
    let changed = cluster.pipe(space, "apply", &manifest(&container("two"), "{a: x}"));
    assert_eq!(changed.trim(), "deployment.apps/web configured");
    let now = cluster.get(space, &["deployment", "web"]);
    assert_eq!(now["metadata"]["labels"], serde_json::json!({ "a": "x" }), "a label was pruned");
    let containers = now["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!(
        containers.iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["two"],
        "a list item was pruned"
    );
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.kubectl(space, &["label", "deployment/web", "e=f"]);
    cluster.kubectl(space, &["annotate", "deployment/web", "note=well"]);
    assert_eq!(
        cluster.kubectl(space, &["get", "deployments", "-l", "e=f", "-o", "name"]).trim(),
        "deployment.apps/web"
    );
    let refused =
        cluster.try_kubectl(space, &["patch", "deployment/web", "-p", r#"{"spec":{"replicas":-1}}"#]).unwrap_err();
    assert!(refused.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"), "{refused}");
}
