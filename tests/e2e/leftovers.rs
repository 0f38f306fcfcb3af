//! What an instance may leave on a machine: the state before the first start, and the difference after a reset.

use mini_config::Instance;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Settings that `mini` changes for the whole machine.
const SYSCTLS: [&str; 4] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/send_redirects",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
];

#[derive(Clone)]
pub(crate) struct Machine {
    instance: Instance,
    sysctls: Vec<String>,
    network_namespaces: BTreeSet<String>,
}

impl Machine {
    pub(crate) fn look(data_dir: &Path) -> Self {
        Self { instance: Instance::of(data_dir), sysctls: sysctls(), network_namespaces: names("/run/netns") }
    }

    /// The same look, for another instance.
    pub(crate) fn of(&self, data_dir: &Path) -> Self {
        Self { instance: Instance::of(data_dir), ..self.clone() }
    }

    /// Everything of the instance that is still there.
    pub(crate) fn left_behind(&self, data_dir: &Path) -> Vec<String> {
        let mut left = Vec::new();
        let run_dir = PathBuf::from(self.instance.run_dir());
        for directory in [data_dir, &data_dir.with_file_name("disk"), &run_dir] {
            if directory.exists() {
                left.push(format!("directory {} with {:?}", directory.display(), names(directory)));
            }
        }
        let places = [data_dir, &data_dir.with_file_name("disk"), &run_dir].map(|path| path.display().to_string());
        let ours = |text: &str| places.iter().any(|place| text.contains(place.as_str()));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| ours(line)).map(|line| format!("mount {line}")));
        left.extend(processes(ours).into_iter().filter(|pid| *pid != std::process::id() as i32).map(|pid| {
            let cmdline = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            format!("process {pid} {}", cmdline.replace('\0', " "))
        }));
        let network = format!("{}-", self.instance.id);
        let notes = names("/var/lib/cni/results");
        left.extend(
            notes.iter().filter(|name| name.starts_with(&network)).map(|name| format!("note of libcni {name}")),
        );
        let spaces = names("/run/netns");
        left.extend(
            spaces
                .difference(&self.network_namespaces)
                .filter(|name| name.starts_with("cni-"))
                .map(|name| format!("network namespace {name}")),
        );
        for (program, arguments) in [("nft", ["list", "tables"].as_slice()), ("ip", &["-o", "link"])] {
            let output = Command::new(program).args(arguments).output().unwrap();
            let output = String::from_utf8_lossy(&output.stdout).into_owned();
            let names = [&self.instance.table, &self.instance.bridge];
            left.extend(
                output
                    .lines()
                    .filter(|line| names.iter().any(|name| line.contains(name.as_str())))
                    .map(|line| format!("{program}: {line}")),
            );
        }
        left.extend(
            cgroups(Path::new("/sys/fs/cgroup"), &[&self.instance.id, &self.instance.table], 3)
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        let now = sysctls();
        left.extend(
            SYSCTLS
                .iter()
                .zip(self.sysctls.iter().zip(&now))
                .filter(|(_, (before, now))| before != now)
                .map(|(name, (before, now))| format!("sysctl {name} was {before} and is {now}")),
        );
        left
    }
}

/// Processes whose command line the test likes.
pub(crate) fn processes(likes: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = names("/proc").into_iter().filter_map(|name| name.parse::<i32>().ok());
    pids.filter(|pid| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        !cmdline.is_empty() && likes(&String::from_utf8_lossy(&cmdline).replace('\0', " "))
    })
    .collect()
}

fn names(directory: impl AsRef<Path>) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn sysctls() -> Vec<String> {
    SYSCTLS
        .iter()
        .map(|name| std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap().trim().to_owned())
        .collect()
}

/// Directories of control groups named after the instance, with either driver.
fn cgroups(directory: &Path, ids: &[&str], depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if ids.iter().any(|id| name.contains(id)) {
            found.push(entry.path());
        } else if depth > 0 {
            found.extend(cgroups(&entry.path(), ids, depth - 1));
        }
    }
    found
}
