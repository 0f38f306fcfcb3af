//! Addons of a folder: enabled until they work, enabled again, failing with the cause, disabled without a trace.

use crate::cluster::{Cluster, IMAGE, text, until};
use serde_json::Value;

const ABOUT: &str = r#"
name: pages
description: Pages of a test
version: "1"
arguments:
  - {name: text, description: What the page says, kind: text, default: hello}
readiness:
  - rollout: {kind: Deployment, namespace: pages, name: web}
  - rollout: {kind: Deployment, namespace: pages, name: self}
  - http: {url: "http://web.pages.svc:8080/"}
"#;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: pages}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: pages}
data: {index.html: "{{ args.text }}\n"}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: pages}
spec: {selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: pages}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {text: "{{ args.text }}"}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: IMAGE
          command: [httpd, -f, -p, "8080", -h, /pages]
          volumeMounts: [{name: pages, mountPath: /pages}]
      volumes: [{name: pages, configMap: {name: web}}]
---
# The executable as an image, as core addons run it.
apiVersion: apps/v1
kind: Deployment
metadata: {name: self, namespace: pages}
spec:
  selector: {matchLabels: {app: self}}
  template:
    metadata: {labels: {app: self}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: self
          image: "{{ image }}"
          args: [pause]
          securityContext:
            readOnlyRootFilesystem: true
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
"#;

const CRASHING: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: crashing, namespace: kube-system}
spec:
  selector: {matchLabels: {app: crashing}}
  template:
    metadata: {labels: {app: crashing}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: IMAGE, command: [sh, -c, "echo the port is taken; exit 3"]}]
"#;

const CRASHING_ABOUT: &str = "name: crashing\ndescription: Never works\nversion: '1'\n\
                              readiness: [{rollout: {kind: Deployment, name: crashing}}]\n";

fn put(cluster: &Cluster, name: &str, about: &str, manifests: &str) {
    let directory = cluster.directory().join("addons").join(name);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("addon.yaml"), about).unwrap();
    std::fs::write(directory.join("all.yaml"), manifests.replace("IMAGE", IMAGE)).unwrap();
}

pub(crate) fn engine(cluster: &Cluster, space: &str) {
    put(cluster, "pages", ABOUT, MANIFESTS);
    put(cluster, "crashing", CRASHING_ABOUT, CRASHING);
    assert!(cluster.mini(["addons", "list"]).contains("pages"), "{}", cluster.mini(["addons", "list"]));
    assert_eq!(cluster.mini(["status", "-a", "pages"]), "disabled\n");

    let said = cluster.mini(["enable", "pages:hello world"]);
    for line in
        ["pages: Deployment pages/web created", "pages: http://web.pages.svc:8080/ answers 200", "pages: enabled"]
    {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(cluster.mini(["status", "-a", "pages"]), "enabled\n");
    assert!(cluster.mini(["status"]).contains("    pages                # (local) Pages of a test\n"));
    let status: Value = serde_json::from_str(&cluster.mini(["status", "--format", "json"])).unwrap();
    let listed = status["addons"].as_array().unwrap().iter().find(|addon| addon["name"] == "pages").unwrap();
    assert_eq!((&listed["status"], &listed["message"]), (&"enabled".into(), &Value::Null), "{status}");
    assert!(cluster.mini(["addons", "show", "pages"]).contains("now hello world"));

    // Plain users may not write to the image's files, nor have they any capability.
    let own = cluster.get("pages", &["pods", "-l", "app=self"]);
    let container = &own["items"][0]["spec"]["containers"][0];
    assert!(container["image"].as_str().unwrap().starts_with("mini.local/mini:"), "{own}");
    let refused = cluster.mini_output(["images", "rm", container["image"].as_str().unwrap()]);
    assert!(!refused.status.success() && text(&refused).contains("mini's own image"), "{}", text(&refused));

    // Again, changed, and what was changed by hand.
    assert!(cluster.mini(["enable", "pages"]).contains("pages: 5 objects unchanged"));
    cluster.kubectl("pages", &["scale", "deployment/web", "--replicas=2"]);
    let said = cluster.mini(["enable", "pages:text=changed"]);
    assert!(said.contains("ConfigMap pages/web changed") && said.contains("Deployment pages/web changed"), "{said}");
    assert_eq!(cluster.get("pages", &["configmap", "web"])["data"]["index.html"], "changed\n");

    // The cause, not only that it took too long.
    let failed = cluster.mini_output(["enable", "crashing", "--timeout", "50"]);
    let said = text(&failed);
    assert!(!failed.status.success(), "{said}");
    for part in ["error: crashing: Deployment kube-system/crashing: 0 of 1 ready", "exit code 3", "the port is taken"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(cluster.mini(["status"]).contains("exit code 3"), "{}", cluster.mini(["status"]));
    let wrong = cluster.mini_output(["enable", "pgaes"]);
    assert!(text(&wrong).contains("did you mean pages?"), "{}", text(&wrong));

    let said = cluster.mini(["disable", "pages", "crashing"]);
    assert!(said.contains("pages: disabled") && said.contains("crashing: disabled"), "{said}");
    assert_eq!(cluster.mini(["status", "-a", "pages"]), "disabled\n");
    let kinds = "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts";
    let left =
        cluster.kubectl(space, &["get", kinds, "-A", "-l", "mini.local/addon in (pages,crashing)", "-o", "name"]);
    assert_eq!(left, "");
    until("the namespace goes", || cluster.try_kubectl(space, &["get", "namespace", "pages"]).is_err());
    assert!(!cluster.kubectl("kube-system", &["get", "configmaps,pods", "-o", "name"]).contains("crashing"));
    let _ = std::fs::remove_dir_all(cluster.directory().join("addons"));
}
