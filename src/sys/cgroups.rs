//! Control groups by name, in whichever hierarchies there are (v1, v2 or both).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Is the process in one of these groups (paths from the root of a hierarchy) or below, in any hierarchy?
#[must_use]
pub fn is_in(pid: i32, names: &[String]) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    // hierarchy:controllers:path
    let mut paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.any(|path| names.iter().any(|name| Path::new(path).starts_with(name)))
}

/// Removes these groups and all below from every hierarchy. They must be empty of processes. Returns what would not go.
pub fn remove(names: &[String]) -> Vec<(PathBuf, io::Error)> {
    let mut failed = Vec::new();
    // systemd makes its slices again unless it is the one that ends them.
    for name in names.iter().filter(|_| crate::systemd::is_running()) {
        if let Some(slice) = name.rsplit('/').next().filter(|last| last.ends_with(".slice"))
            && let Err(error) = crate::systemd::stop(slice)
        {
            failed.push((PathBuf::from(name), error));
        }
    }
    for hierarchy in hierarchies() {
        for name in names {
            let group = hierarchy.join(name.trim_start_matches('/'));
            if group.is_dir() {
                remove_tree(&group, &mut failed);
            }
        }
    }
    failed
}

fn hierarchies() -> BTreeSet<PathBuf> {
    let root = PathBuf::from(ROOT);
    let mut found = BTreeSet::from([root.clone()]);
    if root.join("cgroup.controllers").exists() {
        return found;
    }
    // Controllers mounted together are there under each of their names.
    let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
    found.extend(entries.filter_map(|entry| entry.path().canonicalize().ok()).filter(|path| path.is_dir()));
    found
}

fn remove_tree(group: &Path, failed: &mut Vec<(PathBuf, io::Error)>) {
    let children = std::fs::read_dir(group).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&child.path(), failed);
    }
    // The kernel lets go of a group shortly after its last process.
    for _ in 0..50 {
        match std::fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return failed.push((group.to_owned(), error)),
            _ => return,
        }
    }
    failed.push((group.to_owned(), io::Error::other("processes are in it still")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_is_by_whole_names() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = text.lines().next().and_then(|line| line.splitn(3, ':').nth(2)).unwrap().to_owned();
        assert!(is_in(pid, &[own]));
        assert!(!is_in(pid, &["/no-such-group".to_owned()]));
    }
}
