//! `mini` killed, stopped, started and reset.

use crate::cluster::{Cluster, IDLE, until};
use crate::leftovers::processes;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Kills `mini server` as no program can expect.
fn kill(cluster: &Cluster) {
    let server = cluster.server();
    assert_eq!(server.len(), 1, "one server");
    kill_process(Pid::from_raw(server[0]).unwrap(), Signal::KILL).unwrap();
    until("its end", || cluster.server().is_empty());
}

pub(crate) fn adoption(cluster: &Cluster, space: &str) {
    let marker = format!("{}", 800_000 + std::process::id());
    cluster.kubectl(
        space,
        &[
            "create",
            "deployment",
            "web",
            "--replicas=2",
            &format!("--image={}", crate::cluster::IMAGE),
            "--",
            "sleep",
            &marker,
        ],
    );
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.pod(space, "server", r#"command: [sh, -c, "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]"#);
    cluster.kubectl(space, &["expose", "pod/server", "--port=80", "--target-port=8080"]);
    let address = cluster.field(space, "service/server", ".spec.clusterIP");
    until("the service", || crate::workloads::wget(&format!("http://{address}/")).trim() == "server");
    let state = || {
        let list = cluster.get(space, &["pods"]);
        let pods = list["items"].as_array().unwrap().iter();
        pods.map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            (
                pod["metadata"]["uid"].to_string(),
                status["containerID"].to_string(),
                status["restartCount"].to_string(),
                pod["status"]["podIP"].to_string(),
            )
        })
        .collect::<BTreeSet<_>>()
    };
    let pids = || processes(|cmdline| cmdline.trim() == format!("sleep {marker}")).into_iter().collect::<BTreeSet<_>>();
    // It passes its startup probe once, and would not a second time.
    let probe = "startupProbe: {exec: {command: [sh, -c, test ! -e /tmp/up]}, periodSeconds: 1, failureThreshold: 1}";
    cluster.pod(space, "begun", &format!("command: [sleep, \"1000000\"]\n{probe}"));
    cluster.sh(space, "begun", "touch /tmp/up");
    cluster.create(
        space,
        &crate::cluster::pod("over", "command: [\"true\"]").replace("spec:\n", "spec:\n  restartPolicy: Never\n"),
    );
    until("its end", || cluster.field(space, "pod/over", ".status.phase") == "Succeeded");
    let victim = format!("{marker}9");
    cluster.pod(space, "victim", &format!("command: [sleep, \"{victim}\"]"));
    std::thread::sleep(Duration::from_secs(1));
    let over = || cluster.field(space, "pod/over", ".metadata.resourceVersion");
    let word = over();
    let gone = cluster.field(space, "pod/victim", ".status.containerStatuses[0].containerID");
    let before = (state(), pids());
    assert_eq!(before.1.len(), 2);
    kill(cluster);
    assert_eq!(pids(), before.1, "pods outlive mini");
    for pid in processes(|cmdline| cmdline.trim() == format!("sleep {victim}")) {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
    assert_eq!(crate::workloads::wget(&format!("http://{address}/")).trim(), "server", "services do too");
    let begun = Instant::now();
    cluster.mini(["start", "--wait-ready"]);
    println!("start after a kill to ready: {:.2} s", begun.elapsed().as_secs_f32());
    until("the restart of what died meanwhile", || {
        cluster.field(space, "pod/victim", ".status.containerStatuses[0].restartCount") == "1"
    });
    println!("what died meanwhile is told of after {:.2} s", begun.elapsed().as_secs_f32());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    cluster.kubectl(space, &["delete", "pod", "victim"]);
    // Long enough for a kubelet that wants to restart something.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(over(), word, "nobody touches the status of a pod that is over");
    let mut before = before;
    before.0.retain(|pod| !pod.1.contains(&gone));
    assert_eq!((state(), pids()), before, "the same containers and processes");
    assert_eq!(cluster.sh(space, "server", "hostname").trim(), "server", "and they can be reached");
    cluster.kubectl(space, &["delete", "deployment/web", "pod/server", "pod/begun", "pod/over"]);
    until("their end", || pids().is_empty());
}

/// ConfigMaps by name, with their content; [`UNKNOWN`] while a change is under way.
type Written = BTreeMap<String, String>;
const UNKNOWN: &str = "?";

pub(crate) fn kill_loop(cluster: &Cluster, space: &str) {
    let kubeconfig = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let acknowledged: Arc<Mutex<Written>> = Arc::default();
    let seen: Arc<Mutex<Written>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let client = runtime.block_on(async {
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    });
    let maps: Api<ConfigMap> = Api::namespaced(client, space);
    let writers: Vec<_> =
        (0..4).map(|writer| runtime.spawn(write(maps.clone(), writer, acknowledged.clone(), done.clone()))).collect();
    let watcher = runtime.spawn(watch(maps.clone(), seen.clone()));
    for round in 0..6 {
        std::thread::sleep(Duration::from_millis(300 + 137 * round));
        // Each kill comes amid writes, also on a machine that is busy with other things.
        until("more writes", || u64::try_from(acknowledged.lock().unwrap().len()).unwrap() > 10 * round);
        kill(cluster);
        cluster.mini(["start"]);
    }
    std::thread::sleep(Duration::from_millis(500));
    done.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for writer in writers {
            writer.await.unwrap();
        }
    });
    let wanted = acknowledged.lock().unwrap().clone();
    assert!(wanted.len() > 50, "only {} writes", wanted.len());
    let listed = runtime.block_on(maps.list(&ListParams::default())).unwrap();
    let stored: Written = listed.items.iter().map(|map| (map.name_any(), content(map))).collect();
    for (name, content) in &wanted {
        let found = stored.get(name).unwrap_or_else(|| panic!("{name} was acknowledged, and is lost"));
        assert!(content == UNKNOWN || found == content, "{name} was acknowledged with {content}, and has {found}");
    }
    until("the watch to see all", || {
        let seen = seen.lock().unwrap();
        stored.iter().all(|(name, content)| seen.get(name) == Some(content))
    });
    watcher.abort();
    cluster.mini(["status", "--wait-ready"]);
}

fn content(map: &ConfigMap) -> String {
    map.data.as_ref().and_then(|data| data.get("n")).cloned().unwrap_or_default()
}

/// Creates, and now and then changes, and notes what the server acknowledged.
async fn write(maps: Api<ConfigMap>, writer: u32, acknowledged: Arc<Mutex<Written>>, done: Arc<AtomicBool>) {
    for number in 0_u32.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let mut map = ConfigMap {
            metadata: ObjectMeta { name: Some(format!("w{writer}-{number}")), ..ObjectMeta::default() },
            data: Some([("n".to_owned(), "0".to_owned())].into()),
            ..ConfigMap::default()
        };
        let Ok(created) = maps.create(&PostParams::default(), &map).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        acknowledged.lock().unwrap().insert(created.name_any(), content(&created));
        map.metadata.resource_version = created.metadata.resource_version;
        map.data = Some([("n".to_owned(), "1".to_owned())].into());
        let name = map.name_any();
        // Not known until the answer: a change may be done though its answer is lost.
        acknowledged.lock().unwrap().insert(name.clone(), UNKNOWN.to_owned());
        if let Ok(replaced) = maps.replace(&name, &PostParams::default(), &map).await {
            acknowledged.lock().unwrap().insert(name, content(&replaced));
        }
    }
}

/// Follows all changes over every kill, resuming from the last revision it saw.
async fn watch(maps: Api<ConfigMap>, seen: Arc<Mutex<Written>>) {
    let mut revision = None;
    loop {
        if revision.is_none()
            && let Ok(list) = maps.list(&ListParams::default()).await
        {
            revision = list.metadata.resource_version.clone();
            seen.lock().unwrap().extend(list.items.iter().map(|map| (map.name_any(), content(map))));
        }
        let Some(from) = revision.clone() else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let Ok(stream) = maps.watch(&WatchParams::default(), &from).await {
            let mut stream = stream.boxed();
            while let Ok(Some(event)) = stream.try_next().await {
                match event {
                    WatchEvent::Added(map) | WatchEvent::Modified(map) => {
                        let newer = map.resource_version().unwrap_or_default();
                        let was: u64 = revision.as_deref().unwrap_or_default().parse().unwrap_or_default();
                        assert!(newer.parse::<u64>().unwrap() > was, "revisions only grow: {newer} after {was}");
                        revision = Some(newer);
                        seen.lock().unwrap().insert(map.name_any(), content(&map));
                    }
                    // Too old after an unclean end, which is allowed: begin anew.
                    WatchEvent::Error(_) => revision = None,
                    _ => {}
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn stop_start(cluster: &Cluster, space: &str) {
    let marker = format!("{}", 700_000 + std::process::id());
    cluster.kubectl(
        space,
        &["create", "deployment", "web", &format!("--image={}", crate::cluster::IMAGE), "--", "sleep", &marker],
    );
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.pod(space, "plain", IDLE);
    let running = || processes(|cmdline| cmdline.trim() == format!("sleep {marker}"));
    let first = running();
    assert_eq!(first.len(), 1);

    cluster.mini(["stop", "--keep-pods"]);
    assert_eq!(running(), first, "--keep-pods keeps them");
    cluster.mini(["start", "--wait-ready"]);
    assert_eq!(running(), first);

    cluster.mini(["stop"]);
    assert!(running().is_empty() && cluster.server().is_empty());
    let state = cluster.mini_output(["status"]);
    assert!(!state.status.success() && String::from_utf8_lossy(&state.stdout).contains("not running"), "{state:?}");
    cluster.mini(["stop"]);
    cluster.mini(["start", "--wait-ready"]);
    cluster.mini(["start", "--wait-ready"]);
    until("the pods to come back", || running().len() == 1);
    cluster.kubectl(space, &["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.ready(space, "plain");

    // A stop with nothing to stop is quick.
    cluster.kubectl(space, &["delete", "deployment/web", "pod/plain"]);
    until("no containers", || running().is_empty());
    let begun = Instant::now();
    cluster.mini(["stop"]);
    println!("stop without pods: {:.2} s", begun.elapsed().as_secs_f32());
    let begun = Instant::now();
    cluster.mini(["start"]);
    let api = begun.elapsed();
    cluster.mini(["status", "--wait-ready"]);
    println!("warm start: API {:.2} s, ready {:.2} s", api.as_secs_f32(), begun.elapsed().as_secs_f32());
}

pub(crate) fn reset(cluster: &Cluster, space: &str) {
    cluster.pod(space, "web", IDLE);
    cluster.mini(["reset", "--yes"]);
    let left = cluster.left_behind();
    assert!(left.is_empty(), "{left:#?}");
    cluster.mini(["reset", "--yes"]);
    cluster.forget_kubeconfig();
    cluster.mini(["start", "--wait-ready"]);
    cluster.prepare();
    assert!(cluster.try_kubectl("default", &["get", "namespace", space]).is_err(), "a new cluster");
    cluster.namespace(space);
    cluster.pod(space, "web", IDLE);
}
