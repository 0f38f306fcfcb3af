//! The API's way to pods and services: every verb, redirects, links, what a backend is told and what it is not.

use crate::cluster::{Cluster, until};
use std::process::Command;

const ECHO: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: IMAGE
    command: [nc, -ll, -p, "8080", -e, /echo/echo.sh]
    ports: [{name: web, containerPort: 8080}]
    volumeMounts: [{name: echo, mountPath: /echo}]
  volumes: [{name: echo, configMap: {name: echo, defaultMode: 0755}}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  selector: {app: echo}
  ports: [{name: one, port: 80, targetPort: web}, {name: two, port: 81, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nothing}
spec: {selector: {app: nothing}, ports: [{port: 80}]}
"#;

const VERBS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

pub(crate) fn verbs(cluster: &Cluster, space: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/echo.sh");
    cluster.kubectl(space, &["create", "configmap", "echo", &format!("--from-file=echo.sh={script}")]);
    cluster.create(space, ECHO);
    cluster.ready(space, "echo");
    let account = format!("--serviceaccount={space}:default");
    cluster.kubectl(space, &["create", "rolebinding", "all", "--clusterrole=cluster-admin", &account]);
    let token = cluster.kubectl(space, &["create", "token", "default"]);
    let server = ["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"];
    let server = cluster.kubectl(space, &server);
    // The status and, behind a line, head and body of the answer.
    let ask = |method: &str, path: &str, more: &[&str]| {
        let how = if method == "HEAD" { vec!["-I"] } else { vec!["-i", "-X", method] };
        let output = Command::new("curl")
            .args(["-sk", "--max-time", "20", "-H", &format!("Authorization: Bearer {}", token.trim())])
            .args(how)
            .args(more)
            .arg(format!("{server}{path}"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
        (status, text.replace('\r', ""))
    };
    until("the service's endpoint", || {
        !cluster.field(space, "endpoints/echo", ".subsets[0].addresses[0].ip").is_empty()
    });

    for target in [
        "pods/echo",
        "pods/echo:8080",
        "pods/http:echo:8080",
        "services/echo:one",
        "services/echo:80",
        "services/http:echo:two",
    ] {
        let prefix = format!("/api/v1/namespaces/{space}/{target}/proxy");
        for method in VERBS {
            let writes = matches!(method, "PATCH" | "POST" | "PUT");
            let body: &[&str] = if writes { &["-d", "body"] } else { &[] };
            let (status, text) = ask(method, &format!("{prefix}/some/path/with/{method}?a=b"), body);
            assert_eq!(status, "200", "{method} {target}: {text}");
            let said = format!("\n{method} /some/path/with/{method}?a=b\n");
            assert!(method == "HEAD" || text.contains(&said), "{method} {target}: {text}");
            assert_eq!(text.ends_with("\nbody"), writes, "{method} {target}: {text}");
            // The root without its slash: a page's own links need it.
            let (status, text) = ask(method, &format!("{prefix}?method={method}"), &[]);
            if matches!(method, "GET" | "HEAD") {
                assert_eq!(status, "301", "{method} {target}: {text}");
                assert!(text.contains(&format!("location: {prefix}/?method={method}\n")), "{method} {target}: {text}");
            } else {
                assert!(text.contains(&format!("\n{method} /?method={method}\n")), "{method} {target}: {text}");
            }
        }
        let (status, text) = ask("GET", &format!("{prefix}/moved"), &[]);
        assert_eq!(status, "302", "{target}: {text}");
        assert!(text.contains(&format!("location: {prefix}/there?a=b\n")), "{target}: {text}");
        let (_, text) = ask("GET", &format!("{prefix}/page"), &[]);
        assert!(text.ends_with(&format!("<a href=\"{prefix}/rewriteme\">test</a>")), "{target}: {text}");
    }

    let prefix = format!("/api/v1/namespaces/{space}/pods/echo/proxy");
    let (_, text) = ask("GET", &format!("{prefix}/told"), &["-H", "X-Own: kept", "-H", "Cookie: kept=too"]);
    let told = text.to_lowercase();
    for line in ["x-own: kept", "cookie: kept=too", &format!("x-forwarded-uri: {prefix}/told"), "x-forwarded-for: "] {
        assert!(told.contains(line), "{line}: {text}");
    }
    assert!(!told.contains("authorization") && !told.contains("access-control-allow-origin"), "{text}");
    let spaced = |path: &str| format!("/api/v1/namespaces/{space}/{path}");
    assert_eq!(ask("GET", &spaced("services/nobody/proxy/"), &[]).0, "404");
    assert_eq!(ask("GET", &spaced("services/nothing/proxy/"), &[]).0, "503");
    assert_eq!(ask("GET", &spaced("pods/echo:9/proxy/"), &[]).0, "503");
    assert_eq!(ask("GET", &spaced("pods/ftp:echo:9/proxy/"), &[]).0, "400");
}
