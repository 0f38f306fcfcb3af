//! Takes an instance off the machine, whether its server still works or not.
//!
//! Works from names and paths alone (the configuration's), never from what a server remembers. Invariant: what does not
//! carry this instance's name, and does not live below its directories, is not touched.

use mini_config::Config;
use mini_sys::process::{self, Process};
use mini_sys::{cgroups, mounts};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a data directory of ours has at least one of.
const MARKS: [&str; 5] = ["state.db", "node-name", "pki", "containerd", "mini.log"];

/// Where libcni, inside containerd, notes what it set up. It forgets only what it takes down itself.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// Of what would not go in one directory so much is named.
const NAMED: usize = 5;

/// Refuses directories that are not ours to delete.
///
/// # Errors
/// With a sentence for the user.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let directory = &config.data_dir;
    let empty = std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
    if empty || MARKS.iter().any(|mark| directory.join(mark).exists()) {
        return Ok(());
    }
    anyhow::bail!("{} holds no cluster of mini's but other files; reset will not delete them", directory.display());
}

/// Ends containerd, its shims and everything in containers of this instance, with `grace` between SIGTERM and SIGKILL. Returns what was running.
pub fn end_processes(config: &Config, grace: Duration) -> Vec<Process> {
    let found = Found::look(config);
    let all: Vec<Process> = found.containerd.iter().chain(&found.contained).chain(&found.shims).copied().collect();
    // containerd first, so that it does not act on the end of the others.
    for process in &found.containerd {
        let _ = process.end(grace);
    }
    for process in &found.contained {
        process.signal(rustix::process::Signal::TERM);
    }
    let until = Instant::now() + grace;
    for process in &found.contained {
        let _ = process.wait(until.saturating_duration_since(Instant::now()));
    }
    // Until nothing new turns up: what is ended may have children that were not seen.
    for _ in 0..10 {
        let found = Found::look(config);
        let left: Vec<&Process> = found.containerd.iter().chain(&found.contained).chain(&found.shims).collect();
        if left.is_empty() {
            break;
        }
        for process in &left {
            process.signal(rustix::process::Signal::KILL);
        }
        for process in &left {
            let _ = process.wait(Duration::from_secs(2));
        }
    }
    all
}

/// Removes processes, mounts, networks, cgroups, sysctls, sockets and data, going on after failures. Returns what is left,
/// each with its reason.
#[must_use]
pub fn teardown(config: &Config, grace: Duration) -> Vec<String> {
    let mut left = Vec::new();
    end_processes(config, grace);
    let survivors = Found::look(config);
    for process in survivors.containerd.iter().chain(&survivors.contained).chain(&survivors.shims) {
        left.push(format!("process {} ({}) does not end", process.pid, process.name()));
    }
    for directory in [&config.run_dir, &config.data_dir] {
        // What would not go is named when its directory is emptied.
        mounts::unmount_below(directory);
    }
    if let Err(error) = network(config) {
        left.push(format!("the network: {error:#}"));
    }
    remove_cni_results(Path::new(CNI_RESULTS), &config.instance.id);
    crate::hosts_file::remove();
    for (path, error) in cgroups::remove(&cgroup_names(config)) {
        left.push(format!("cgroup {} cannot be removed: {error}", path.display()));
    }
    for directory in [&config.run_dir, &config.data_dir] {
        let stays = mounts::empty(directory);
        left.extend(stays.iter().take(NAMED).map(|(path, error)| format!("{} stays: {error}", path.display())));
        if stays.len() > NAMED {
            left.push(format!("{} more in {}", stays.len() - NAMED, directory.display()));
        }
        // Where it is a mount point of the user's, it stays.
        let _ = std::fs::remove_dir(directory);
    }
    left
}

fn network(config: &Config) -> anyhow::Result<()> {
    let network = crate::network_config(config, config.node_ip());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(mini_network::teardown(&network))?)
}

/// The notes about sandboxes of `network`: `<network>-<sandbox>-eth0`, and the one of the sandbox's loopback.
fn remove_cni_results(directory: &Path, network: &str) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let inner = name.to_str().and_then(|name| name.strip_prefix(network)?.strip_prefix('-')?.strip_suffix("-eth0"));
        // The name of another instance's network may begin with this one's.
        let Some(sandbox) = inner.filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit())) else { continue };
        for note in [entry.path(), directory.join(format!("cni-loopback-{sandbox}-lo"))] {
            let _ = std::fs::remove_file(note);
        }
    }
    // If they are empty: whoever wants them makes them.
    let _ = std::fs::remove_dir(directory).and_then(|()| std::fs::remove_dir(directory.parent().unwrap_or(directory)));
}

/// The roots of this instance's cgroups with either driver.
fn cgroup_names(config: &Config) -> [String; 2] {
    [config.instance.cgroup.clone(), format!("/{}.slice", config.instance.id.replace('-', "_"))]
}

#[derive(Default)]
struct Found {
    containerd: Vec<Process>,
    shims: Vec<Process>,
    /// Below a shim, or in one of our cgroups.
    contained: Vec<Process>,
}

impl Found {
    fn look(config: &Config) -> Self {
        let mut found = Self::default();
        let names = cgroup_names(config);
        let homes: Vec<PathBuf> = vec![config.run_dir.join("containerd"), config.data_dir.join("containerd")];
        // One that has ended and waits for its parent to collect it is no longer there to be ended.
        let processes: Vec<Process> = process::all().into_iter().filter(Process::is_alive).collect();
        for process in processes.iter().filter(|process| **process != Process::current()) {
            match role(&process.arguments(), &homes) {
                Some(Role::Containerd) => found.containerd.push(*process),
                Some(Role::Shim) => found.shims.push(*process),
                None => {}
            }
        }
        let mut inside: HashSet<i32> = found.shims.iter().map(|shim| shim.pid).collect();
        let parents: Vec<(Process, i32)> =
            processes.iter().filter_map(|process| Some((*process, process.parent()?))).collect();
        loop {
            let inner: Vec<i32> = parents
                .iter()
                .filter(|(child, parent)| inside.contains(parent) && !inside.contains(&child.pid))
                .map(|(child, _)| child.pid)
                .collect();
            if inner.is_empty() {
                break;
            }
            inside.extend(inner);
        }
        found.contained = processes
            .into_iter()
            .filter(|process| inside.contains(&process.pid) || cgroups::is_in(process.pid, &names))
            .filter(|process| !found.shims.contains(process) && !found.containerd.contains(process))
            .filter(|process| *process != Process::current())
            .collect();
        found
    }
}

enum Role {
    Containerd,
    Shim,
}

/// Ours are known by a path below our directories among their arguments.
fn role(arguments: &[String], homes: &[PathBuf]) -> Option<Role> {
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    let ours = arguments.iter().skip(1).any(|argument| homes.iter().any(|home| Path::new(argument).starts_with(home)));
    match program {
        _ if !ours => None,
        "containerd" => Some(Role::Containerd),
        _ if program.starts_with("containerd-shim") => Some(Role::Shim),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_containerd_is_ours() {
        let homes = [PathBuf::from("/run/mini/containerd")];
        let role = |line: &str| role(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), &homes);
        assert!(matches!(
            role("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -address /run/mini/containerd/containerd.sock"),
            Some(Role::Shim)
        ));
        assert!(matches!(role("containerd --config /run/mini/containerd/config.toml"), Some(Role::Containerd)));
        for other in [
            "/usr/bin/containerd",
            "containerd-shim-runc-v2 -address /run/containerd/containerd.sock",
            "containerd --config /run/mini/containerd2/config.toml",
            "vi /run/mini/containerd/config.toml",
        ] {
            assert!(role(other).is_none(), "{other}");
        }
    }

    #[test]
    fn only_notes_about_our_sandboxes_go() {
        let directory = tempfile::tempdir().unwrap();
        let results = directory.path().join("cni/results");
        std::fs::create_dir_all(&results).unwrap();
        let (ours, theirs) = ("a".repeat(64), "b".repeat(64));
        let other = [format!("mini-12ab34-{theirs}-eth0"), format!("cni-loopback-{theirs}-lo")];
        for name in other.iter().chain(&[format!("mini-{ours}-eth0"), format!("cni-loopback-{ours}-lo")]) {
            std::fs::write(results.join(name), "").unwrap();
        }
        remove_cni_results(&results, "mini");
        assert_eq!(std::fs::read_dir(&results).unwrap().count(), other.len());
        assert!(other.iter().all(|name| results.join(name).exists()));
        remove_cni_results(&results, "mini-12ab34");
        assert!(!directory.path().join("cni").exists());
    }

    #[test]
    fn foreign_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let flags = vec![("data-dir".to_owned(), directory.path().display().to_string())];
        let config = Config::load(&mini_config::Sources { flags, ..Default::default() }).unwrap();
        check(&config).unwrap();
        std::fs::write(directory.path().join("thesis.tex"), "").unwrap();
        assert!(check(&config).is_err());
        std::fs::write(directory.path().join("state.db"), "").unwrap();
        check(&config).unwrap();
        assert!(mounts::empty(directory.path()).is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
