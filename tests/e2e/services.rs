//! Pods and services on the network.

use crate::cluster::{Cluster, IDLE, free_port, until};
use crate::workloads::wget;
use std::time::Instant;

const SERVE: &str = r#"command: [sh, -c, "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]"#;

pub(crate) fn reach(cluster: &Cluster, space: &str) {
    cluster.pod(space, "server", SERVE);
    cluster.pod(space, "client", IDLE);
    cluster.kubectl(space, &["expose", "pod/server", "--port=80", "--target-port=8080", "--type=NodePort"]);
    let address = cluster.field(space, "service/server", ".spec.clusterIP");
    let port = cluster.field(space, "service/server", ".spec.ports[0].nodePort");
    let node = cluster.field(space, "node/e2e", ".status.addresses[?(@.type==\"InternalIP\")].address");
    until("the service", || wget(&format!("http://{address}/")).trim() == "server");
    let doors = [address.clone(), format!("{node}:{port}")];
    for door in &doors {
        assert_eq!(wget(&format!("http://{door}/")).trim(), "server", "{door} from the host");
        for pod in ["client", "server"] {
            let said = cluster.sh(space, pod, &format!("timeout 5 wget -qO- http://{door}/"));
            assert_eq!(said.trim(), "server", "{door} from pod {pod}");
        }
    }
    assert_eq!(wget(&format!("http://127.0.0.1:{port}/")).trim(), "server");
    let pod = cluster.field(space, "pod/server", ".status.podIP");
    assert_eq!(cluster.sh(space, "client", &format!("timeout 5 wget -qO- http://{pod}:8080/")).trim(), "server");

    // Without endpoints a service refuses at once.
    cluster.kubectl(space, &["delete", "pod/server", "--wait=true"]);
    until("no endpoints", || cluster.field(space, "endpoints/server", ".subsets").is_empty());
    let begun = Instant::now();
    until("refusal", || {
        let said = cluster.try_sh(space, "client", &format!("timeout 5 wget -qO- http://{address}/"));
        said.is_err_and(|said| said.contains("refused"))
    });
    assert!(begun.elapsed().as_secs() < 5);
}

pub(crate) fn host_port(cluster: &Cluster, space: &str) {
    let port = free_port();
    cluster.pod(space, "server", &format!("{SERVE}\nports: [{{containerPort: 8080, hostPort: {port}}}]"));
    assert_eq!(wget(&format!("http://127.0.0.1:{port}/")).trim(), "server");
    cluster.kubectl(space, &["delete", "pod/server"]);
    assert_eq!(wget(&format!("http://127.0.0.1:{port}/")), "");
}

pub(crate) fn api_from_pod(cluster: &Cluster, space: &str) {
    cluster.pod(space, "client", IDLE);
    let mounted = cluster.sh(space, "client", "ls /var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mounted.split_whitespace().collect::<Vec<_>>(), ["ca.crt", "namespace", "token"]);
    assert_eq!(cluster.sh(space, "client", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace"), space);
    let token = cluster.sh(space, "client", "cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    let who = cluster.kubectl(
        space,
        &[
            "auth",
            "whoami",
            "--token",
            token.trim(),
            "-o",
            "json",
            "--kubeconfig",
            "/dev/null",
            "--insecure-skip-tls-verify",
            "--server",
            &server(cluster),
        ],
    );
    assert!(who.contains(&format!("system:serviceaccount:{space}:default")), "{who}");
    let open = cluster.sh(
        space,
        "client",
        "nc -w 3 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null && echo open",
    );
    assert_eq!(open.trim(), "open");
}

fn server(cluster: &Cluster) -> String {
    let config = cluster.mini(["config"]);
    let line = config.lines().find(|line| line.trim_start().starts_with("server:")).unwrap();
    line.trim().trim_start_matches("server:").trim().trim_matches('"').to_owned()
}
