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

pub(crate) fn load_balancer(cluster: &Cluster, space: &str) {
    cluster.pod(space, "server", SERVE);
    cluster.pod(space, "client", IDLE);
    let port = free_port();
    let expose = |name: &str| {
        let (name, port) = (format!("--name={name}"), format!("--port={port}"));
        cluster.kubectl(space, &["expose", "pod/server", &name, &port, "--target-port=8080", "--type=LoadBalancer"]);
    };
    let node = cluster.field(space, "node/e2e", ".status.addresses[?(@.type==\"InternalIP\")].address");
    let address = |name: &str| cluster.field(space, &format!("service/{name}"), ".status.loadBalancer.ingress[0].ip");
    expose("web");
    until("the address", || address("web") == node);
    let table = cluster.kubectl(space, &["get", "service", "web"]);
    let shown: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((shown[1], shown[3]), ("LoadBalancer", node.as_str()), "{table}");
    assert_eq!(cluster.field(space, "service/web", ".status.loadBalancer.ingress[0].ipMode"), "VIP");
    let door = format!("http://{node}:{port}/");
    until("the balancer", || wget(&door).trim() == "server");
    for pod in ["client", "server"] {
        assert_eq!(cluster.sh(space, pod, &format!("timeout 5 wget -qO- {door}")).trim(), "server", "from {pod}");
    }
    // The port has one holder; who comes next is told, and gets it after.
    expose("second");
    let said = format!("port {port}/TCP is taken by Service {space}/web");
    until("the conflict to be told", || cluster.kubectl(space, &["get", "events"]).contains(&said));
    assert_eq!(address("second"), "");
    cluster.kubectl(space, &["patch", "service/web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    until("the port to change hands", || address("web").is_empty() && address("second") == node);
    // Others may be kept out.
    let ranges = r#"{"spec":{"loadBalancerSourceRanges":["198.51.100.0/24"]}}"#;
    cluster.kubectl(space, &["patch", "service/second", "-p", ranges]);
    let refused = || cluster.try_sh(space, "client", &format!("timeout 2 wget -qO- {door}")).is_err();
    until("strangers to be kept out", refused);
    cluster.kubectl(space, &["delete", "service/second"]);
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
