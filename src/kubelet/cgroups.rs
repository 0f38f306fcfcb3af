//! The pod's place in the cgroup tree: `/<instance>/<class>/pod<uid>`, under systemd the slices of those names.
//!
//! runc makes the folders; we only give the pod its share and take the folders away.

use crate::resources::{self, Qos};
use k8s_openapi::api::core::v1::Pod;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The parent that the containers of a pod get.
pub(crate) fn parent(instance: &str, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if crate::containerd::cgroup_driver_is_systemd() {
        let name = instance.replace('-', "_");
        let uid = uid.replace('-', "_");
        return match class(pod) {
            Some(class) => format!("{name}-{class}-pod{uid}.slice"),
            None => format!("{name}-pod{uid}.slice"),
        };
    }
    match class(pod) {
        Some(class) => format!("/{instance}/{class}/pod{uid}"),
        None => format!("/{instance}/pod{uid}"),
    }
}

fn class(pod: &Pod) -> Option<&'static str> {
    match resources::qos(pod) {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    }
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
    let shares = resources::shares(milli);
    let parent = parent(instance, pod);
    let relative = parent.trim_start_matches('/');
    let v1 = Path::new(ROOT).join("cpu");
    if v1.join("cpu.shares").exists() {
        let dir = v1.join(relative);
        if fs::create_dir_all(&dir).is_ok() {
            let _ = fs::write(dir.join("cpu.shares"), shares.to_string());
        }
    } else if Path::new(ROOT).join("cgroup.controllers").exists() {
        let dir = Path::new(ROOT).join(relative);
        if fs::create_dir_all(&dir).is_ok() {
            let mut up = PathBuf::from(ROOT);
            for part in Path::new(relative).components() {
                let _ = fs::write(up.join("cgroup.subtree_control"), "+cpu +memory +pids +io +cpuset");
                up.push(part);
            }
            let weight = 1 + ((shares - 2) * 9999) / 262_142;
            let _ = fs::write(dir.join("cpu.weight"), weight.to_string());
        }
    }
}

/// Removes the pod's emptied cgroups in every hierarchy.
pub(crate) fn remove(instance: &str, pod: &Pod) {
    remove_below(&parent(instance, pod));
}

/// Removes all that is left of an instance.
pub(crate) fn remove_instance(instance: &str) {
    remove_below(&format!("/{instance}"));
}

/// Every process in the cgroups of an instance.
pub(crate) fn processes(instance: &str) -> Vec<rustix::process::Pid> {
    let mut out = Vec::new();
    for root in hierarchies() {
        collect(&root.join(instance), &mut out);
    }
    out
}

fn collect(dir: &Path, out: &mut Vec<rustix::process::Pid>) {
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    out.extend(pids.lines().filter_map(|l| l.parse().ok()).filter_map(rustix::process::Pid::from_raw));
    for child in fs::read_dir(dir).into_iter().flatten().flatten().filter(|c| c.file_type().is_ok_and(|t| t.is_dir())) {
        collect(&child.path(), out);
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let all = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = all.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
    roots.push(PathBuf::from(ROOT));
    roots
}

fn remove_below(parent: &str) {
    let relative = parent.trim_start_matches('/');
    for root in hierarchies() {
        let dir = root.join(relative);
        if dir.is_dir() {
            remove_tree(&dir);
        }
    }
}

/// cgroup folders are removed by rmdir, deepest first; one with processes stays.
fn remove_tree(dir: &Path) {
    if let Ok(children) = fs::read_dir(dir) {
        for child in children.flatten().filter(|c| c.file_type().is_ok_and(|t| t.is_dir())) {
            remove_tree(&child.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
