//! Taking away everything the kubelet and its containerd leave on the machine: the `mini reset` side.

use crate::{cgroups, volumes::tear_down};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ends what still runs of an instance (containers, shims, containerd), unmounts what is below `dirs`, and removes its cgroups.
/// Works with nothing else running; deletes no data.
///
/// # Errors
/// When a mount stays.
pub async fn teardown(instance: &str, run_dir: &Path, dirs: &[PathBuf]) -> io::Result<()> {
    let socket = run_dir.join("containerd").join("containerd.sock");
    let config = PathBuf::from("containerd").join("config.toml");
    for _ in 0..50 {
        let mut left: Vec<Pid> = processes_of(&socket, dirs, &config);
        left.extend(cgroups::processes(instance));
        if left.is_empty() {
            break;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for dir in dirs.iter().map(PathBuf::as_path).chain([run_dir]) {
        tear_down::unmount_below(dir)?;
    }
    cgroups::remove_instance(instance);
    Ok(())
}

/// Shims name our socket on their command line, containerd our configuration.
fn processes_of(socket: &Path, dirs: &[PathBuf], config: &Path) -> Vec<Pid> {
    let configs: Vec<PathBuf> = dirs.iter().map(|d| d.join(config)).collect();
    let mut out = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let name = words.first().map(|w| String::from_utf8_lossy(w).into_owned()).unwrap_or_default();
        if !name.contains("containerd") {
            continue;
        }
        let ours = |word: &[u8]| {
            let word = Path::new(std::str::from_utf8(word).unwrap_or_default());
            word == socket || configs.iter().any(|c| c == word)
        };
        if words.iter().any(|w| ours(w)) {
            out.push(pid);
        }
    }
    out
}
