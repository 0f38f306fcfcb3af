//! The ingress addon: web pods behind Ingresses, opened on the machine's address.

use crate::cluster::{Cluster, free_port, until};
use std::net::TcpListener;
use std::process::Command;

const SERVE: &str = r#"command: [sh, -c, "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]"#;

/// Where the addon listens.
struct Doors {
    address: String,
    http: u16,
    https: u16,
}

impl Doors {
    /// What curl says of a host at the machine's address: the status, the certificate's subject and the body.
    fn open(&self, scheme: &str, host: &str, path: &str, more: &[&str]) -> String {
        let port = if scheme == "https" { self.https } else { self.http };
        let output = Command::new("curl")
            .args(["-sk", "--max-time", "10", "-w", "|%{http_code} HTTP/%{http_version} %{redirect_url}"])
            .args(["--resolve", &format!("{host}:{port}:{}", self.address)])
            .args(more)
            .arg(format!("{scheme}://{host}:{port}{path}"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().replace('\n', "")
    }
}

pub(crate) fn served(cluster: &Cluster, space: &str) {
    // A port that a program has is not taken from it.
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = cluster.mini_output(["enable", &format!("ingress:httpPort={port};httpsPort={}", free_port())]);
    let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    let process = std::process::id();
    assert!(!refused.status.success() && said.contains(&format!("port {port} is taken by ")), "{said}");
    assert!(said.contains(&format!("(process {process})")), "{said}");
    drop(taken);

    let address = cluster.field(space, "node/e2e", ".status.addresses[?(@.type==\"InternalIP\")].address");
    let doors = Doors { address, http: free_port(), https: free_port() };
    cluster.mini(["enable", &format!("ingress:httpPort={};httpsPort={}", doors.http, doors.https)]);
    assert!(doors.open("http", "nobody.test", "/", &[]).ends_with("|404 HTTP/1.1"));

    for name in ["web", "api"] {
        cluster.pod(space, name, SERVE);
        cluster.kubectl(space, &["expose", &format!("pod/{name}"), "--port=80", "--target-port=8080"]);
    }
    certificate(cluster, space);
    cluster.kubectl(
        space,
        &["create", "ingress", "site", "--rule=site.test/*=web:80,tls=site", "--rule=site.test/api/*=api:80"],
    );
    cluster.kubectl(space, &["annotate", "ingress/site", "nginx.ingress.kubernetes.io/ssl-redirect=false"]);
    until("the page", || doors.open("http", "site.test", "/", &[]) == "web|200 HTTP/1.1");
    assert_eq!(doors.open("https", "site.test", "/", &[]), "web|200 HTTP/2");
    // The pod behind the longer path has no such page: it is asked all the same.
    assert!(doors.open("http", "site.test", "/api/x", &[]).ends_with("|404 HTTP/1.1"));
    assert!(doors.open("https", "site.test", "/", &["-v", "--stderr", "-"]).contains("CN=site.test"));
    until("the address", || {
        cluster.field(space, "ingress/site", ".status.loadBalancer.ingress[0].ip") == doors.address
    });
    assert_eq!(cluster.field(space, "ingress/site", ".spec.ingressClassName"), "mini");

    // A change of annotations is a change of routes.
    cluster.kubectl(space, &["annotate", "ingress/site", "nginx.ingress.kubernetes.io/ssl-redirect-"]);
    let wanted = format!("|308 HTTP/1.1 https://site.test:{}/p?q=1", doors.https);
    until("the redirect", || doors.open("http", "site.test", "/p?q=1", &[]).ends_with(&wanted));

    // Endpoints that go are no longer asked.
    cluster.kubectl(space, &["delete", "pod/web", "--wait=true"]);
    until("no endpoint", || doors.open("https", "site.test", "/", &["-o", "/dev/null"]) == "|503 HTTP/2");

    crate::dashboard::behind_an_ingress(cluster, &doors.address, doors.https);
    cluster.mini(["disable", "ingress"]);
    assert_eq!(doors.open("http", "site.test", "/", &[]), "|000 HTTP/0");
    assert!(cluster.try_kubectl(space, &["get", "ingressclass", "mini"]).is_err());
}

/// A Secret with a certificate for `site.test`.
fn certificate(cluster: &Cluster, space: &str) {
    let file = |name: &str| cluster.directory().join(name).display().to_string();
    let (certificate, key) = (file("site.crt"), file("site.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=site.test", "-addext", "subjectAltName=DNS:site.test"])
        .args(["-out", &certificate, "-keyout", &key])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    cluster.kubectl(
        space,
        &["create", "secret", "tls", "site", &format!("--cert={certificate}"), &format!("--key={key}")],
    );
}
