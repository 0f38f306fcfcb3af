//! What containers find in their file systems and environment.

use crate::cluster::{Cluster, until};

pub(crate) fn kinds(cluster: &Cluster, space: &str) {
    let host = cluster.directory().join(format!("host-{space}"));
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, "app.conf": "a=1"}
binaryData: {bytes: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {app: reader}, annotations: {note: well}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000}
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, "echo '$(GREETING)' > /scratch/said; sleep 1000000"]
    resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {memory: 64Mi}}
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: MY_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: GREETING, value: "hello $(COLOUR) $$(COLOUR)"}
    envFrom: [{configMapRef: {name: settings}, prefix: ALL_}]
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one/app.conf, subPath: app.conf}
    - {name: keys, mountPath: /keys, readOnly: true}
    - {name: all, mountPath: /all}
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host}
    - {name: about, mountPath: /about}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400, items: [{key: password, path: deep/word}]}}
  - name: all
    projected:
      sources:
      - configMap: {name: settings, items: [{key: colour, path: colour}]}
      - secret: {name: keys}
      - serviceAccountToken: {path: token, audience: me}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: host, hostPath: {path: HOST, type: Directory}}
  - name: about
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}
"#;
    cluster.create(space, &manifest.replace("HOST", host.to_str().unwrap()));
    cluster.ready(space, "reader");
    let ip = cluster.field(space, "pod/reader", ".status.podIP");
    for (line, wanted) in [
        ("cat /settings/colour", "blue"),
        ("cat /settings/app.conf /one/app.conf", "a=1a=1"),
        ("xxd -p /settings/bytes", "000102"),
        ("cat /keys/deep/word", "hush"),
        ("cat /all/colour /all/password", "bluehush"),
        ("wc -c < /all/token | awk '{print ($1 > 100)}'", "1"),
        ("cat /scratch/said", "hello blue $(COLOUR)"),
        ("stat -c %g /scratch", "2000"),
        ("grep -c ' /memory tmpfs' /proc/mounts", "1"),
        ("cat /host/file", "from the host"),
        ("cat /about/labels", "app=\"reader\""),
        ("cat /about/note", "well"),
        ("echo $COLOUR $PASSWORD $LIMIT $ALL_colour", "blue hush 67108864 blue"),
        ("echo $MY_IP", &ip),
        ("touch /keys/x 2>/dev/null || echo refused", "refused"),
        ("hostname", "reader"),
        ("cat /etc/resolv.conf | grep -c ^search", "1"),
    ] {
        assert_eq!(cluster.sh(space, "reader", line).trim(), wanted, "{line}");
    }
    assert_eq!(cluster.field(space, "pod/reader", ".status.qosClass"), "Burstable");
    cluster.kubectl(space, &["delete", "pod", "reader"]);
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "from the host", "the host's file stays");
}

pub(crate) fn update(cluster: &Cluster, space: &str) {
    cluster.kubectl(space, &["create", "configmap", "settings", "--from-literal=colour=blue"]);
    cluster.create(
        space,
        r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: IMAGE, command: [sleep, "1000000"], volumeMounts: [{name: settings, mountPath: /settings}]}
  volumes: [{name: settings, configMap: {name: settings}}]
"#,
    );
    cluster.ready(space, "reader");
    cluster.kubectl(space, &["patch", "configmap/settings", "-p", r#"{"data":{"colour":"green"}}"#]);
    until("the new content", || cluster.sh(space, "reader", "cat /settings/colour") == "green");
}
