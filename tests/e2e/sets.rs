//! Jobs, DaemonSets, StatefulSets and budgets on real containers.

use crate::cluster::{Cluster, until};

const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: queue}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: IMAGE, command: [sh, -c, "true"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  backoffLimitPerIndex: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: IMAGE, command: [sh, -c, "test $JOB_COMPLETION_INDEX != 1 && hostname | grep -q ^indexed-"]}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "0 0 31 1 *"
  timeZone: Europe/Berlin
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers: [{name: main, image: IMAGE, command: [sh, -c, "true"]}]
"#;

pub(crate) fn jobs(cluster: &Cluster, space: &str) {
    cluster.create(space, JOBS);
    cluster.kubectl(space, &["wait", "job/queue", "--for=condition=complete", "--timeout=60s"]);
    assert_eq!(cluster.field(space, "job/queue", ".status.succeeded"), "3");
    cluster.kubectl(space, &["wait", "job/indexed", "--for=condition=failed", "--timeout=60s"]);
    let indexes = |field: &str| cluster.field(space, "job/indexed", &format!(".status.{field}"));
    assert_eq!((indexes("completedIndexes"), indexes("failedIndexes")), ("0,2".to_owned(), "1".to_owned()));
    cluster.kubectl(space, &["create", "job", "by-hand", "--from=cronjob/tick"]);
    cluster.kubectl(space, &["wait", "job/by-hand", "--for=condition=complete", "--timeout=60s"]);
    cluster.kubectl(space, &["delete", "job", "queue", "--timeout=30s"]);
    until("the job's pods to go", || cluster.kubectl(space, &["get", "pods", "-l", "job-name=queue"]).is_empty());
}

const SETS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: IMAGE, command: [sleep, "3600"]}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: IMAGE, command: [sleep, "3600"]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {minAvailable: 2, selector: {matchLabels: {app: db}}}
"#;

pub(crate) fn sets(cluster: &Cluster, space: &str) {
    cluster.create(space, SETS);
    let rolled = |what: &str| cluster.kubectl(space, &["rollout", "status", what, "--timeout=60s"]);
    for (what, pod) in [("daemonset/agent", "app=agent"), ("statefulset/db", "app=db")] {
        rolled(what);
        let hash = || {
            let pods = cluster.get(space, &["pods", "-l", pod]);
            pods["items"][0]["metadata"]["labels"]["controller-revision-hash"].clone()
        };
        let first = hash();
        cluster.kubectl(space, &["set", "env", what, "COLOUR=green"]);
        rolled(what);
        until("new pods", || hash() != first);
        cluster.kubectl(space, &["rollout", "undo", what]);
        rolled(what);
        until("the first pods' template again", || hash() == first);
    }
    assert_eq!(cluster.sh(space, "db-1", "hostname").trim(), "db-1");

    let eviction = r#"{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0"}}"#;
    let path = cluster.directory().join(format!("{space}-eviction.json"));
    std::fs::write(&path, eviction).unwrap();
    let url = format!("/api/v1/namespaces/{space}/pods/db-0/eviction");
    let evict = || cluster.try_kubectl(space, &["create", "--raw", &url, "-f", path.to_str().unwrap()]);
    until("the budget to be counted", || cluster.field(space, "pdb/db", ".status.currentHealthy") == "2");
    let refused = evict().unwrap_err();
    assert!(refused.contains("would violate the pod's disruption budget"), "{refused}");
    let uid = cluster.field(space, "pod/db-0", ".metadata.uid");
    cluster.kubectl(space, &["patch", "pdb", "db", "--type=merge", "-p", r#"{"spec": {"minAvailable": 1}}"#]);
    until("an eviction", || evict().is_ok());
    until("the pod to come back under its name", || {
        let now = cluster.try_kubectl(space, &["get", "pod", "db-0", "-o", "jsonpath={.metadata.uid}"]);
        now.is_ok_and(|now| now != uid)
    });
}
