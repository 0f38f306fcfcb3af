//! What people ask first: versions, nodes, status, access, explanations.

use crate::cluster::{Cluster, IMAGE, text};
use serde_json::Value;
use std::process::Command;

pub(crate) fn tell(cluster: &Cluster, space: &str) {
    let version: Value = serde_json::from_str(&cluster.kubectl(space, &["version", "-o", "json"])).unwrap();
    assert_eq!(version["serverVersion"]["minor"], "37", "{version}");
    assert!(cluster.mini(["version"]).contains(env!("CARGO_PKG_VERSION")));

    let nodes = cluster.kubectl(space, &["get", "nodes", "-o", "wide"]);
    let row = nodes.lines().nth(1).unwrap();
    assert!(
        nodes.starts_with("NAME") && row.starts_with("e2e") && row.contains(" Ready ") && row.contains("containerd://"),
        "{nodes}"
    );
    let described = cluster.kubectl(space, &["describe", "node", "e2e"]);
    for part in ["Allocatable:", "Kubelet Version:", "MemoryPressure", "KubeletReady"] {
        assert!(described.contains(part), "{part} in {described}");
    }

    assert!(cluster.mini(["status"]).contains("running"), "{}", cluster.mini(["status"]));
    let status: Value = serde_json::from_str(&cluster.mini(["status", "--format", "json"])).unwrap();
    assert_eq!(status["mini"]["ready"], true, "{status}");
    assert!(cluster.mini(["images", "list"]).contains(IMAGE));
    assert!(cluster.mini(["kubectl", "get", "namespaces"]).contains("kube-system"));
    assert!(cluster.mini(["completion", "bash"]).contains("mini"));

    assert_eq!(cluster.kubectl(space, &["auth", "can-i", "create", "pods"]).trim(), "yes");
    let denied = cluster.try_kubectl(space, &["auth", "can-i", "create", "pods", "--as", "nobody"]);
    assert_eq!(denied.unwrap_err().trim(), "no");
    let refused = cluster.try_kubectl(space, &["get", "pods", "--as", "nobody"]).unwrap_err();
    assert!(
        refused.contains("Forbidden") && refused.contains(r#"User "nobody" cannot list resource "pods""#),
        "{refused}"
    );

    assert!(cluster.kubectl(space, &["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
    let resources = cluster.kubectl(space, &["api-resources"]);
    for kind in ["deployments", "endpointslices", "rolebindings", "leases"] {
        assert!(resources.contains(kind), "{kind} in {resources}");
    }
    let missing = cluster.try_kubectl(space, &["get", "pod", "nobody"]).unwrap_err();
    assert!(missing.contains(r#"Error from server (NotFound): pods "nobody" not found"#), "{missing}");
}

/// `mini inspect`: its archive holds what a helper wants to see, and no secret.
pub(crate) fn report(cluster: &Cluster, space: &str) {
    const HIDDEN: &str = "c2hvdWxkIG5vdCBiZSBzZWVu";
    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: hidden}}\ndata: {{key: {HIDDEN}}}\n");
    cluster.pipe(space, "apply", &secret);
    let directory = cluster.directory().join("report");
    std::fs::create_dir_all(&directory).unwrap();
    let said = cluster.mini(["inspect", "--output", directory.to_str().unwrap()]);
    let archive = said.lines().find_map(|line| line.strip_prefix("report: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(archive.contains("/inspection-report-2") && archive.ends_with(".tar.gz"), "{said}");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&directory).status().unwrap();
    assert!(unpacked.success());
    let inside = directory.join(archive.rsplit('/').next().unwrap().trim_end_matches(".tar.gz"));
    for file in [
        "diagnosis.txt",
        "mini/status.json",
        "mini/mini.log",
        "mini/containerd.log",
        "network/own-table.txt",
        "network/routes.txt",
        "machine/kernel.txt",
        "cluster/nodes.json",
        "cluster/pods.json",
        "cluster/secrets.json",
    ] {
        assert!(inside.join(file).is_file(), "{file} is in the report: {said}");
    }
    let found = Command::new("grep")
        .args(["-rlE", &format!("{HIDDEN}|PRIVATE KEY|eyJ[A-Za-z0-9_-]+[.]eyJ")])
        .arg(&inside)
        .output();
    assert_eq!(text(&found.unwrap()), "", "secrets in the report");
    std::fs::remove_dir_all(directory).unwrap();
}
