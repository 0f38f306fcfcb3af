//! `kubectl top`, and what it is made of.

use crate::cluster::{Cluster, until};
use std::time::{Duration, Instant};

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: spins, image: IMAGE, command: [sh, -c, "while :; do :; done"], resources: {limits: {cpu: 200m}}}
  - {name: sleeps, image: IMAGE, command: [sleep, "1000"], resources: {limits: {memory: 32Mi}}}
"#;

/// The lines of a table without its head, in words.
fn rows(table: &str) -> Vec<Vec<String>> {
    table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn number(text: &str, unit: &str) -> i64 {
    text.strip_suffix(unit).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{text} is not in {unit}"))
}

pub(crate) fn top(cluster: &Cluster, space: &str) {
    assert_eq!(cluster.mini(["status", "-a", "metrics-server"]), "enabled\n");
    assert!(cluster.mini(["enable", "metrics-server"]).contains("metrics-server: enabled"));
    let begun = Instant::now();
    let nodes = rows(&cluster.kubectl(space, &["top", "nodes"]));
    assert!(begun.elapsed() < Duration::from_secs(5), "kubectl top took {:?}", begun.elapsed());
    let [node] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((node[0].as_str(), node.len()), ("e2e", 5), "{node:?}");
    assert!(number(&node[3], "Mi") > 0, "{node:?}");

    cluster.pipe(space, "apply", POD);
    cluster.kubectl(space, &["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"]);
    until("the busy container is measured", || {
        let told = cluster.try_kubectl(space, &["top", "pods", "--containers", "-l", "app=busy"]);
        let Ok(table) = told else { return false };
        let rows = rows(&table);
        let used = |name: &str| rows.iter().find(|row| row[1] == name).map(|row| number(&row[2], "m"));
        let (Some(spins), Some(sleeps)) = (used("spins"), used("sleeps")) else { return false };
        assert!(spins <= 300, "{table}");
        spins >= 100 && sleeps <= 20
    });
    let table = cluster.kubectl(space, &["top", "pod", "busy"]);
    assert_eq!(rows(&table)[0][0], "busy");
    let found = cluster.get(space, &["pods.metrics.k8s.io", "busy"]);
    assert_eq!(
        (&found["kind"], &found["metadata"]["labels"]["app"]),
        (&"PodMetrics".into(), &"busy".into()),
        "{found}"
    );
    assert!(cluster.kubectl(space, &["get", "podmetrics"]).starts_with("NAME"));
    let missing = cluster.try_kubectl(space, &["top", "pod", "nobody"]);
    assert!(missing.is_err(), "{missing:?}");

    // Whoever may view a namespace may see what it uses.
    let may = |verb: &str| cluster.try_kubectl(space, &["auth", "can-i", verb, "pods.metrics.k8s.io", "--as=eve"]);
    assert!(may("list").is_err());
    cluster.kubectl(space, &["create", "rolebinding", "eve", "--clusterrole=view", "--user=eve"]);
    until("the role is aggregated", || may("list").is_ok());

    let raw = |path: &str| cluster.kubectl(space, &["get", "--raw", &format!("/api/v1/nodes/e2e/proxy/{path}")]);
    let summary: serde_json::Value = serde_json::from_str(&raw("stats/summary")).unwrap();
    let pod = summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap();
    let sleeps = pod["containers"].as_array().unwrap().iter().find(|c| c["name"] == "sleeps").unwrap();
    let available = sleeps["memory"]["availableBytes"].as_u64().unwrap();
    assert!(available > 16 << 20 && available < 32 << 20, "{sleeps}");
    assert!(pod["network"]["rxBytes"].is_u64() && summary["node"]["fs"]["capacityBytes"].is_u64(), "{summary}");
    let text = raw("metrics/resource");
    assert!(text.contains("container_cpu_usage_seconds_total{container=\"spins\""), "{text}");
    for (page, samples) in [
        (
            "metrics",
            &["kubelet_node_name{node=\"e2e\"} 1", "kubelet_running_pods ", "kubelet_runtime_operations_total{"][..],
        ),
        (
            "metrics/cadvisor",
            &["container_cpu_usage_seconds_total{container=\"spins\"", "container_network_receive_bytes_total{"],
        ),
        ("metrics/probes", &["prober_probe_total{probe_type="]),
    ] {
        let text = raw(page);
        for sample in samples {
            assert!(text.lines().any(|line| line.starts_with(sample)), "{page}: no {sample} in {text}");
        }
    }
    cluster.kubectl(space, &["delete", "pod", "busy"]);

    assert!(cluster.mini(["disable", "metrics-server"]).contains("metrics-server: disabled"));
    let gone = cluster.try_kubectl(space, &["get", "--raw", "/apis/metrics.k8s.io/v1/nodes"]);
    assert!(gone.is_err(), "{gone:?}");
    cluster.mini(["enable", "metrics-server"]);
}
