//! Claims get volumes of the node that outlive their pods.

use crate::cluster::{Cluster, until};

fn user(name: &str, line: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000, runAsGroup: 1000}}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "{line}; sleep 1000000"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
"#
    )
}

const CLAIM: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
"#;

/// The words of a line of kubectl's table.
fn line<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let found = table.lines().find(|line| line.starts_with(first)).unwrap_or_else(|| panic!("no {first}:\n{table}"));
    found.split_whitespace().collect()
}

pub(crate) fn hostpath(cluster: &Cluster, space: &str) {
    let said = cluster.mini(["enable", "hostpath-storage"]);
    assert!(said.ends_with("hostpath-storage: enabled\n"), "{said}");
    let classes = cluster.kubectl(space, &["get", "storageclasses"]);
    let heads = ["NAME", "PROVISIONER", "RECLAIMPOLICY", "VOLUMEBINDINGMODE", "ALLOWVOLUMEEXPANSION", "AGE"];
    assert_eq!(line(&classes, "NAME"), heads);
    let class = ["mini-hostpath", "(default)", "mini.local/hostpath", "Delete", "WaitForFirstConsumer", "false"];
    assert_eq!(line(&classes, "mini-hostpath")[..6], class);

    cluster.create(space, CLAIM);
    until("the wait for a consumer to be told", || {
        cluster.kubectl(space, &["get", "events"]).contains("waiting for first consumer to be created before binding")
    });
    assert_eq!(line(&cluster.kubectl(space, &["get", "pvc"]), "data")[1], "Pending");
    cluster.create(space, &user("writer", "echo kept > /data/file"));
    cluster.ready(space, "writer");
    let volume = cluster.field(space, "pvc/data", ".spec.volumeName");
    let claims = cluster.kubectl(space, &["get", "pvc"]);
    assert_eq!(line(&claims, "data")[..6], ["data", "Bound", &volume, "64Mi", "RWO", "mini-hostpath"]);
    let volumes = cluster.kubectl(space, &["get", "pv", &volume]);
    let claim = format!("{space}/data");
    assert_eq!(line(&volumes, &volume)[1..7], ["64Mi", "RWO", "Delete", "Bound", &claim, "mini-hostpath"]);
    let folder = cluster.data_dir().join(format!("storage/{space}-data-{volume}"));
    assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "kept\n");

    // It outlives its pod, and is kept while a pod has it.
    cluster.kubectl(space, &["delete", "pod", "writer"]);
    cluster.create(space, &user("reader", "mkdir -p /data/deep/er; ln -s / /data/link"));
    cluster.ready(space, "reader");
    assert_eq!(cluster.sh(space, "reader", "cat /data/file"), "kept\n");
    cluster.kubectl(space, &["delete", "pvc", "data", "--wait=false"]);
    until("the claim to be leaving", || line(&cluster.kubectl(space, &["get", "pvc"]), "data")[1] == "Terminating");
    assert_eq!(cluster.sh(space, "reader", "cat /data/file"), "kept\n");
    cluster.kubectl(space, &["delete", "pod", "reader"]);
    until("the claim to go", || cluster.field(space, "pvc/data", ".metadata.name").is_empty());
    until("the volume to go", || cluster.field(space, &format!("pv/{volume}"), ".metadata.name").is_empty());
    assert!(!folder.exists());
    assert!(cluster.mini(["disable", "hostpath-storage"]).ends_with("hostpath-storage: disabled\n"));
    assert!(cluster.field(space, "storageclass/mini-hostpath", ".metadata.name").is_empty());
}

/// A volume made by hand, found by class, size and selector; released and kept.
pub(crate) fn by_hand(cluster: &Cluster, space: &str) {
    let folder = cluster.directory().join(format!("static-{space}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), "by hand").unwrap();
    let manifest = r#"
apiVersion: v1
kind: PersistentVolume
metadata: {name: VOLUME, labels: {kind: byhand}}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: byhand
  hostPath: {path: FOLDER}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: byhand
  selector: {matchLabels: {kind: byhand}}
  resources: {requests: {storage: 500Mi}}
"#;
    let volume = format!("{space}-volume");
    cluster.create(space, &manifest.replace("VOLUME", &volume).replace("FOLDER", folder.to_str().unwrap()));
    until("the claim to be bound", || cluster.field(space, "pvc/data", ".status.phase") == "Bound");
    assert_eq!(cluster.field(space, "pvc/data", ".status.capacity.storage"), "1Gi");
    cluster.create(space, &user("reader", "true"));
    cluster.ready(space, "reader");
    assert_eq!(cluster.sh(space, "reader", "cat /data/file"), "by hand");
    cluster.kubectl(space, &["delete", "pod", "reader"]);
    cluster.kubectl(space, &["delete", "pvc", "data"]);
    until("the volume to be released", || cluster.field(space, &format!("pv/{volume}"), ".status.phase") == "Released");
    cluster.kubectl(space, &["delete", "pv", &volume]);
    assert!(folder.join("file").exists());
}
