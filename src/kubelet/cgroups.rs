//! The pod's place in the cgroup tree: `/<instance>/<class>/pod<uid>`, under systemd the slices of those names.
//!
//! runc makes the folders; we only give the pod its share and take the folders away.

use crate::resources::{self, Qos};
use k8s_openapi::api::core::v1::Pod;
use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";
/// What limits and statistics need.
const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "io", "cpuset"];

/// The parent that the containers of a pod get.
pub(crate) fn parent(instance: &str, pod: &Pod) -> String {
    named(instance, pod, crate::containerd::cgroup_driver_is_systemd())
}

fn named(instance: &str, pod: &Pod, systemd: bool) -> String {
    let pod_part = format!("pod{}", pod.metadata.uid.as_deref().unwrap_or_default());
    let parts = [Some(instance), class(pod), Some(&pod_part)];
    let parts = parts.into_iter().flatten();
    if systemd {
        // In a slice's name "-" leads to its parent.
        let parts: Vec<String> = parts.map(|part| part.replace('-', "_")).collect();
        return format!("{}.slice", parts.join("-"));
    }
    parts.map(|part| format!("/{part}")).collect()
}

fn class(pod: &Pod) -> Option<&'static str> {
    match resources::qos(pod) {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    }
}

/// Where the pod's cgroup is in a hierarchy.
pub(crate) fn of_pod(instance: &str, pod: &Pod) -> String {
    path_of(&parent(instance, pod))
}

/// Where containerd puts a container below the pod's.
pub(crate) fn of_container(of_pod: &str, id: &str) -> String {
    if of_pod.ends_with(".slice") { format!("{of_pod}/cri-containerd-{id}.scope") } else { format!("{of_pod}/{id}") }
}

/// Where a parent is in a hierarchy: systemd puts `a-b.slice` into `a.slice`.
fn path_of(parent: &str) -> String {
    let Some(name) = parent.strip_suffix(".slice") else { return parent.to_owned() };
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter_map(|end| name.get(..end)).map(|slice| format!("/{slice}.slice")).collect()
}

/// Gives the pod's cgroup its CPU shares (cgroup v1) or weight (v2). Best effort: a pod runs without, too.
pub(crate) fn prepare(instance: &str, pod: &Pod) {
    if crate::containerd::cgroup_driver_is_systemd() {
        return;
    }
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let milli: i64 = containers
        .filter_map(|c| {
            resources::milli_cpu(&resources::requests(c)).or_else(|| resources::milli_cpu(&resources::limits(c)))
        })
        .sum();
    share(Path::new(ROOT), &parent(instance, pod), resources::shares(milli));
}

fn share(root: &Path, parent: &str, shares: i64) {
    let relative = parent.trim_start_matches('/');
    let v1 = root.join("cpu");
    if v1.join("cpu.shares").exists() {
        let dir = v1.join(relative);
        if fs::create_dir_all(&dir).is_ok() {
            let _ = fs::write(dir.join("cpu.shares"), shares.to_string());
            // All pods together count as much as the machine has to give; one group's default is that of one core.
            let cores = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
            if let Some(instance) = Path::new(relative).iter().next() {
                let _ = fs::write(v1.join(instance).join("cpu.shares"), resources::shares(cores * 1000).to_string());
            }
        }
    } else if root.join("cgroup.controllers").exists() {
        let dir = root.join(relative);
        if fs::create_dir_all(&dir).is_ok() {
            let mut up = root.to_owned();
            for part in Path::new(relative).components() {
                // One that the kernel does not have would make it refuse all.
                let there = fs::read_to_string(up.join("cgroup.controllers")).unwrap_or_default();
                let wanted = CONTROLLERS.iter().filter(|name| there.split_whitespace().any(|t| t == **name));
                let wanted: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
                let _ = fs::write(up.join("cgroup.subtree_control"), wanted.join(" "));
                up.push(part);
            }
            let weight = 1 + ((shares - 2) * 9999) / 262_142;
            let _ = fs::write(dir.join("cpu.weight"), weight.to_string());
        }
    }
}

/// Removes the pod's emptied cgroups in every hierarchy.
pub(crate) async fn remove(instance: &str, pod: &Pod) {
    let path = of_pod(instance, pod);
    let _ = tokio::task::spawn_blocking(move || {
        for (path, error) in mini_sys::cgroups::remove(&[path]) {
            tracing::debug!(path = %path.display(), %error, "a cgroup stays");
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        let spec = json!({"containers": [{"name": "c", "resources": resources}]});
        serde_json::from_value(json!({"metadata": {"uid": "1a-2b"}, "spec": spec})).unwrap()
    }

    #[test]
    fn each_class_has_its_place_with_either_driver() {
        let whole = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        for (resources, files, slice) in [
            (json!({}), "/mini-01/besteffort/pod1a-2b", "mini_01-besteffort-pod1a_2b.slice"),
            (json!({"requests": {"cpu": "1"}}), "/mini-01/burstable/pod1a-2b", "mini_01-burstable-pod1a_2b.slice"),
            (whole, "/mini-01/pod1a-2b", "mini_01-pod1a_2b.slice"),
        ] {
            assert_eq!(named("mini-01", &pod(resources.clone()), false), files);
            assert_eq!(named("mini-01", &pod(resources), true), slice);
        }
        assert_eq!(path_of("/mini/besteffort/pod1"), "/mini/besteffort/pod1");
        assert_eq!(
            path_of("mini_01-besteffort-pod1a_2b.slice"),
            "/mini_01.slice/mini_01-besteffort.slice/mini_01-besteffort-pod1a_2b.slice"
        );
    }

    #[test]
    fn shares_become_a_weight_in_the_unified_hierarchy() {
        let root = std::env::temp_dir().join(format!("mini-cgroups-{}", std::process::id()));
        fs::create_dir_all(root.join("mini")).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory hugetlb\n").unwrap();
        fs::write(root.join("mini/cgroup.controllers"), "cpu memory\n").unwrap();
        share(&root, "/mini/besteffort/podx", 1024);
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(read("mini/besteffort/podx/cpu.weight"), "39");
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +io +cpuset");
        assert_eq!(read("mini/cgroup.subtree_control"), "+cpu +memory");
        fs::remove_dir_all(&root).unwrap();
        // cgroup v1: a hierarchy for each controller.
        fs::create_dir_all(root.join("cpu")).unwrap();
        fs::write(root.join("cpu/cpu.shares"), "1024").unwrap();
        share(&root, "/mini/pody", 512);
        assert_eq!(read("cpu/mini/pody/cpu.shares"), "512");
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(read("cpu/mini/cpu.shares"), (cores * 1024).to_string());
        fs::remove_dir_all(&root).unwrap();
    }
}
