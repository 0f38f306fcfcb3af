//! The dashboard as people use it: a real browser on the page, through each of the ways that lead to it.

use crate::cluster::{Cluster, text, until};
use crate::streams::Running;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const SERVICE: &str = "api/v1/namespaces/kube-system/services/https:kubernetes-dashboard:/proxy/";

pub(crate) fn used(cluster: &Cluster, space: &str) {
    cluster.create(space, &OBJECTS.replace("NAMESPACE", space));
    cluster.mini(["enable", "dashboard"]);
    until("the objects' pods", || cluster.field(space, "deployment/web", ".status.readyReplicas") == "2");
    let token = cluster.mini(["dashboard", "--token"]).trim().to_owned();
    let (_near, near) = way(cluster.mini_command(["dashboard", "--listen=127.0.0.1:0"]), "https://127.0.0.1:");
    let near = format!("https://127.0.0.1:{near}/");

    let curl = |arguments: &[&str]| text(&Command::new("curl").arg("-sik").args(arguments).output().unwrap());
    let page = curl(&[&near]);
    for expected in ["200", "<div id=\"app\">", "default-src 'none'", "frame-ancestors 'none'", "nosniff"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let pods = format!("{near}api/v1/pods?limit=1");
    assert!(curl(&[&pods, "-H", &format!("Authorization: Bearer {token}")]).contains("\"code\":401"));
    assert!(curl(&[&pods, "-H", &format!("X-Dashboard-Token: {token}")]).contains("PodList"));
    assert!(cluster.kubectl(space, &["get", "--raw", &format!("/{SERVICE}")]).contains("<div id=\"app\">"));
    assert!(memory(cluster) < 15 * 1024, "the dashboard's server has {} KiB", memory(cluster));

    let Some(browser) = Browser::find() else { return };
    let browse = |url: &str, token: &str, viewer: Option<&str>| {
        browser.run(&[("URL", url), ("TOKEN", token), ("NAMESPACE", space), ("VIEWER", viewer.unwrap_or_default())]);
    };
    // The documented older way to a token, and the two other ways to the page.
    let secret = cluster.kubectl("kube-system", &["describe", "secret", "kubernetes-dashboard-token"]);
    let lasting = secret.lines().find_map(|line| line.strip_prefix("token:")).expect(&secret).trim().to_owned();
    let (_proxy, proxy) = way(cluster.kubectl_command(["proxy", "--port=0"]), "127.0.0.1:");
    browse(&format!("http://localhost:{proxy}/{SERVICE}"), &lasting, None);
    let forward = ["port-forward", "-n", "kube-system", "svc/kubernetes-dashboard", ":443"];
    let (_forward, forward) = way(cluster.kubectl_command(forward), "127.0.0.1:");
    browse(&format!("https://localhost:{forward}/"), &token, None);
    browse(&near, &token, Some(cluster.kubectl(space, &["create", "token", "viewer"]).trim()));
}

/// The page behind an Ingress, as README.md describes it; `address` and `port` are the controller's.
pub(crate) fn behind_an_ingress(cluster: &Cluster, address: &str, port: u16) {
    let space = "behind-an-ingress-t";
    cluster.mini(["enable", "dashboard"]);
    cluster.create("kube-system", INGRESS);
    let (host, resolve) = ("dashboard.test", format!("dashboard.test:{port}:{address}"));
    let url = format!("https://{host}:{port}/");
    until("the page", || {
        let asked = Command::new("curl").args(["-sk", "--resolve", &resolve, &url]).output().unwrap();
        text(&asked).contains("<div id=\"app\">")
    });
    if let Some(browser) = Browser::find() {
        cluster.namespace(space);
        cluster.create(space, &OBJECTS.replace("NAMESPACE", space));
        until("the objects' pods", || cluster.field(space, "deployment/web", ".status.readyReplicas") == "2");
        let token = cluster.mini(["dashboard", "--token"]).trim().to_owned();
        let rules = format!("MAP {host} {address}");
        browser.run(&[("URL", &url), ("TOKEN", &token), ("NAMESPACE", space), ("HOST_RULES", &rules)]);
        cluster.drop_namespace(space);
    }
    cluster.kubectl("kube-system", &["delete", "ingress", "dashboard"]);
}

const INGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: dashboard
  annotations: {nginx.ingress.kubernetes.io/backend-protocol: HTTPS}
spec:
  rules:
  - host: dashboard.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: kubernetes-dashboard, port: {number: 443}}}}
"#;

/// What runs tests/dashboard/browser.mjs.
struct Browser {
    chromium: &'static str,
}

impl Browser {
    fn find() -> Option<Self> {
        let browsers = ["chromium", "google-chrome", "chromium-browser"];
        let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
        let chromium = browsers.into_iter().find(works);
        if chromium.is_none() {
            println!("the dashboard is not tested in a browser: there is no Chromium");
        }
        Some(Self { chromium: chromium? })
    }

    fn run(&self, environment: &[(&str, &str)]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard/browser.mjs");
        let mut node = Command::new("node");
        let output =
            node.arg(script).env("CHROMIUM", self.chromium).envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{environment:?}: {}", text(&output));
    }
}

const OBJECTS: &str = include_str!("../dashboard/objects.yaml");

/// Starts what makes the page reachable, and reads the port from what it says.
fn way(mut command: Command, before: &str) -> (Running, u16) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let port: String = line.split(before).nth(1).expect(&line).chars().take_while(char::is_ascii_digit).collect();
    // Whoever reads no further must not stop it from writing.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (running, port.parse().unwrap())
}

/// Memory of the server in the pod, in KiB; a debug executable's own pages are not counted.
fn memory(cluster: &Cluster) -> u64 {
    let id = cluster.kubectl(
        "kube-system",
        &[
            "get",
            "pod",
            "-l",
            "k8s-app=kubernetes-dashboard",
            "-o",
            "jsonpath={.items[0].status.containerStatuses[0].containerID}",
        ],
    );
    let id = id.trim_start_matches("containerd://").to_owned();
    let of_container = |pid: &i32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        !id.is_empty() && groups.contains(&id)
    };
    let pids = crate::leftovers::processes(|cmdline| cmdline.contains("addon-server"));
    let pid = pids.into_iter().find(of_container).expect("the server's process");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}
