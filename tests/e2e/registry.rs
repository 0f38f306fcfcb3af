//! Images pulled by reference, from a registry on loopback that the test serves itself.

use crate::cluster::{Cluster, pod, until};
use crate::image::{Image, MANIFEST_TYPE, digest};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `Basic` credentials of `user:secret`.
const CREDENTIALS: &str = "Basic dXNlcjpzZWNyZXQ=";

/// One image under any name; names that start with `private` want credentials, and `none` is not there.
struct Registry {
    image: Image,
    /// How often a manifest was asked for.
    asked: AtomicUsize,
}

impl Registry {
    /// Serves until the process ends; the address it listens on.
    fn start() -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Arc::new(Self { image: Image::new(), asked: AtomicUsize::new(0) });
        let serving = Arc::clone(&registry);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = Arc::clone(&serving);
                std::thread::spawn(move || registry.answer(stream));
            }
        });
        (registry, address)
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let first = lines.next()?.ok()?;
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let (method, path) = first.split_once(' ')?;
        let path = path.split(' ').next()?;
        let allowed =
            headers.iter().any(|line| line.to_lowercase().starts_with("authorization") && line.ends_with(CREDENTIALS));
        let (code, kind, body): (&str, &str, &[u8]) = if path.starts_with("/v2/private") && !allowed {
            ("401 Unauthorized", "text/plain", b"")
        } else {
            match self.find(path) {
                Some((kind, body)) => ("200 OK", kind, body),
                None => ("404 Not Found", "text/plain", b""),
            }
        };
        write!(
            stream,
            "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\
             WWW-Authenticate: Basic realm=\"test\"\r\nConnection: close\r\n\r\n",
            body.len(),
            digest(body)
        )
        .ok()?;
        if method == "GET" { stream.write_all(body).ok() } else { Some(()) }
    }

    fn find(&self, path: &str) -> Option<(&'static str, &[u8])> {
        if path == "/v2/" {
            return Some(("application/json", b"{}"));
        }
        let (collection, wanted) = path.rsplit_once('/')?;
        if collection.starts_with("/v2/none/") {
            return None;
        }
        if collection.ends_with("/blobs") {
            let blob = self.image.blobs().into_iter().find(|blob| digest(blob) == wanted)?;
            return Some(("application/octet-stream", blob));
        }
        collection.ends_with("/manifests").then(|| {
            self.asked.fetch_add(1, Ordering::Relaxed);
            (MANIFEST_TYPE, self.image.manifest.as_slice())
        })
    }
}

pub(crate) fn pull(cluster: &Cluster, space: &str) {
    let (registry, address) = Registry::start();
    let pod_of = |name: &str, image: &str, policy: &str| {
        pod(name, &format!("command: [sleep, \"1000\"]\nimagePullPolicy: {policy}"))
            .replace("IMAGE", &format!("{address}/{image}"))
    };
    let reason =
        |name: &str| cluster.field(space, &format!("pod/{name}"), ".status.containerStatuses[0].state.waiting.reason");

    cluster.create(space, &pod_of("first", "busybox:1", "IfNotPresent"));
    cluster.ready(space, "first");
    let events = cluster.kubectl(space, &["get", "events", "--field-selector=involvedObject.name=first"]);
    assert!(events.contains("Pulling image") && events.contains("Successfully pulled image"), "{events}");

    let asked = registry.asked.load(Ordering::Relaxed);
    cluster.create(space, &pod_of("present", "busybox:1", "IfNotPresent"));
    cluster.ready(space, "present");
    assert_eq!(registry.asked.load(Ordering::Relaxed), asked, "an image that is present is not asked for");
    cluster.create(space, &pod_of("always", "busybox:1", "Always"));
    cluster.ready(space, "always");
    assert!(registry.asked.load(Ordering::Relaxed) > asked, "Always asks the registry");

    cluster.create(space, &pod_of("absent", "none/busybox:1", "IfNotPresent"));
    until("the failed pull", || reason("absent") == "ErrImagePull");
    until("the back-off", || reason("absent") == "ImagePullBackOff");

    cluster.create(space, &pod_of("locked", "private/busybox:1", "Always"));
    until("the refused pull", || ["ErrImagePull", "ImagePullBackOff"].contains(&reason("locked").as_str()));
    let server = format!("--docker-server={address}");
    let secret =
        ["create", "secret", "docker-registry", "key", &server, "--docker-username=user", "--docker-password=secret"];
    cluster.kubectl(space, &secret);
    let opened = pod_of("opened", "private/busybox:1", "Always")
        .replace("spec:\n", "spec:\n  imagePullSecrets: [{name: key}]\n");
    cluster.create(space, &opened);
    cluster.ready(space, "opened");
}
