//! What goes into the archive: what programs say, and files.

use super::checks::Machine;
use super::scrub;
use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use mini_config::Config;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Of a log, its end.
const LONGEST_LOG: u64 = 4 << 20;
const LONGEST_POD_LOG: u64 = 128 << 10;
/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// File in the archive, program and arguments. What is not installed is left out.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("network/addresses.txt", &["ip", "address"]),
    ("network/routes.txt", &["ip", "route", "show", "table", "all"]),
    ("network/rules.txt", &["ip", "rule"]),
    ("network/sockets.txt", &["ss", "-tulpn"]),
    ("network/nftables.txt", &["nft", "list", "ruleset"]),
    ("network/iptables.txt", &["iptables-save"]),
    ("network/iptables-legacy.txt", &["iptables-legacy-save"]),
    ("network/resolved.txt", &["resolvectl", "status", "--no-pager"]),
    ("machine/kernel.txt", &["uname", "-a"]),
    ("machine/uptime.txt", &["uptime"]),
    ("machine/memory.txt", &["free", "-m"]),
    ("machine/disks.txt", &["df", "-h"]),
    ("machine/inodes.txt", &["df", "-i"]),
    // Without command lines: they hold passwords.
    ("machine/processes.txt", &["ps", "-eo", "pid,ppid,user,stat,rss,pcpu,etime,comm"]),
    ("machine/modules.txt", &["lsmod"]),
    ("machine/kernel-log.txt", &["dmesg", "--ctime"]),
    ("machine/virtualisation.txt", &["systemd-detect-virt"]),
    ("machine/apparmor.txt", &["aa-status"]),
    ("machine/time.txt", &["timedatectl"]),
    ("mini/unit.txt", &["systemctl", "status", "--no-pager", "mini.service"]),
    ("mini/journal.txt", &["journalctl", "--no-pager", "-n", "100000", "-u", "mini.service"]),
    ("mini/containerd-version.txt", &["containerd", "--version"]),
    ("mini/runc-version.txt", &["runc", "--version"]),
    ("mini/nft-version.txt", &["nft", "--version"]),
    ("cluster/kubectl-version.txt", &["kubectl", "version", "--client"]),
];

/// Files of the machine that go in as they are.
const FILES: &[(&str, &str)] = &[
    ("machine/os-release.txt", "/etc/os-release"),
    ("machine/command-line.txt", "/proc/cmdline"),
    ("machine/cgroups.txt", "/proc/cgroups"),
    ("machine/own-cgroup.txt", "/proc/self/cgroup"),
    ("machine/cgroup-controllers.txt", "/sys/fs/cgroup/cgroup.controllers"),
    ("machine/mounts.txt", "/proc/self/mountinfo"),
    ("machine/meminfo.txt", "/proc/meminfo"),
    ("machine/pressure-memory.txt", "/proc/pressure/memory"),
    ("machine/swaps.txt", "/proc/swaps"),
    ("machine/aio-nr.txt", "/proc/sys/fs/aio-nr"),
    ("machine/aio-max-nr.txt", "/proc/sys/fs/aio-max-nr"),
    ("machine/inotify-instances.txt", "/proc/sys/fs/inotify/max_user_instances"),
    ("machine/inotify-watches.txt", "/proc/sys/fs/inotify/max_user_watches"),
    ("network/resolv.conf", "/etc/resolv.conf"),
    ("network/hosts.txt", "/etc/hosts"),
    ("network/ip-forward.txt", "/proc/sys/net/ipv4/ip_forward"),
];

/// The archive while it is written.
pub(super) struct Report {
    /// The folder inside it, which is the archive's name too.
    name: String,
    path: PathBuf,
    tar: tar::Builder<GzEncoder<File>>,
    time: u64,
    /// What could not be collected.
    missed: String,
}

impl Report {
    pub(super) fn new(directory: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let now = jiff::Timestamp::now();
        let name = format!("inspection-report-{}", now.strftime("%Y%m%d_%H%M%S"));
        let path = directory.join(format!("{name}.tar.gz"));
        // Its reader sees much of the machine.
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file =
            file.with_context(|| format!("cannot write {}; choose another place with --output", path.display()))?;
        let tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        let time = u64::try_from(now.as_second()).unwrap_or_default();
        Ok(Self { name, path, tar, time, missed: String::new() })
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        let text = scrub::text(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        let path = format!("{}/{name}", self.name);
        if let Err(error) = self.tar.append_data(&mut header, path, text.as_bytes()) {
            self.missed(name, &error);
        }
    }

    pub(super) fn missed(&mut self, name: &str, why: &dyn std::fmt::Display) {
        self.missed.push_str(&format!("{name}: {why}\n"));
    }

    /// The end of a file, if it is there.
    fn file(&mut self, name: &str, path: &Path, most: u64) {
        match end_of(path, most) {
            Ok(text) => self.text(name, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.missed(name, &error),
        }
    }

    fn program(&mut self, name: &str, arguments: &[&str]) {
        let Some((program, arguments)) = arguments.split_first() else { return };
        let Some(path) = mini_config::find_program(Path::new(program)) else { return };
        match said(&path, arguments) {
            Ok(text) => self.text(name, &text),
            Err(why) => self.missed(name, &why),
        }
    }

    pub(super) fn finish(mut self) -> anyhow::Result<PathBuf> {
        let missed = std::mem::take(&mut self.missed);
        if !missed.is_empty() {
            self.text("not-collected.txt", &missed);
        }
        let wrote = self.tar.into_inner().and_then(GzEncoder::finish).and_then(|file| file.sync_all());
        wrote.with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(self.path)
    }
}

/// All a program said, bounded in time.
fn said(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("LC_ALL", "C");
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = std::thread::spawn(move || (read(out), read(err)));
    let begun = Instant::now();
    while !reading.is_finished() {
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} did not end within {} s", program.display(), PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.wait();
    let (out, err) = reading.join().unwrap_or_default();
    Ok(out + &err)
}

fn read(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(LONGEST_LOG * 4).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn end_of(path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > most {
        file.seek(SeekFrom::Start(length - most))?;
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the machine is and does.
pub(super) fn machine(report: &mut Report) {
    for (name, arguments) in PROGRAMS {
        report.program(name, arguments);
    }
    for (name, path) in FILES {
        report.file(name, Path::new(path), LONGEST_LOG);
    }
}

/// What belongs to this instance of mini.
pub(super) fn instance(report: &mut Report, config: &Config, machine: &Machine, failure: Option<String>) {
    report.text(
        "mini/version.txt",
        &format!("mini {} (Kubernetes {})\n", env!("CARGO_PKG_VERSION"), mini_api::KUBERNETES_VERSION),
    );
    report.text("mini/settings.txt", &format!("{config:#?}\n"));
    let json = |value: Option<serde_json::Result<String>>| {
        value.and_then(Result::ok).unwrap_or_else(|| "not running".to_owned())
    };
    report.text("mini/status.json", &json(machine.status.as_ref().map(serde_json::to_string_pretty)));
    report.text("mini/addons.json", &json(machine.addons.as_ref().map(serde_json::to_string_pretty)));
    if let Some(failure) = failure {
        report.text("mini/last-failure.txt", &failure);
    }
    let containerd = config.data_dir.join("containerd");
    for (name, path) in [
        ("mini/mini.log", config.log_file()),
        ("mini/mini.log.1", config.log_file().with_extension("log.1")),
        ("mini/containerd.log", containerd.join("containerd.log")),
        ("mini/containerd.toml", containerd.join("config.toml")),
        ("mini/sysctls.json", config.sysctls_file()),
    ] {
        report.file(name, &path, LONGEST_LOG);
    }
    report.text("mini/files.txt", &listing(&config.data_dir));
    let table = config.instance.table.clone();
    report.program("network/own-table.txt", &["nft", "list", "table", "inet", &table]);
    // Of the system's own pods only: what others log is theirs.
    for directory in sorted(&config.pod_logs_dir()).iter().filter(|path| name(path).starts_with("kube-system_")) {
        for container in sorted(directory) {
            if let Some(log) = sorted(&container).pop() {
                let place = format!("pods/{}/{}/{}", name(directory), name(&container), name(&log));
                report.file(&place, &log, LONGEST_POD_LOG);
            }
        }
    }
}

/// The data directory's files, two levels deep, with their sizes.
fn listing(directory: &Path) -> String {
    let mut text = String::new();
    for path in sorted(directory).into_iter().flat_map(|path| [vec![path.clone()], sorted(&path)].concat()) {
        let size = path.symlink_metadata().map_or(0, |meta| meta.len());
        text.push_str(&format!("{size:>12} {}\n", path.display()));
    }
    text
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_bounded_and_ends_of_files_read() {
        assert_eq!(said(Path::new("/bin/echo"), &["a", "b"]).unwrap(), "a b\n");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!((end_of(&path, 4).unwrap().as_str(), end_of(&path, 40).unwrap().as_str()), ("6789", "0123456789"));
    }

    #[test]
    fn the_archive_holds_what_was_put_in_without_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let mut report = Report::new(directory.path()).unwrap();
        report.text("a/b.txt", "Bearer eyJhbGciOi.eyJpc3Mi.c2ln\n");
        report.missed("c", &"gone");
        let path = report.finish().unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(&path).unwrap()));
        let mut files = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.push((name(&entry.path().unwrap()), text));
        }
        assert_eq!(
            files,
            [
                ("b.txt".to_owned(), "Bearer <removed>\n".to_owned()),
                ("not-collected.txt".to_owned(), "c: gone\n".to_owned())
            ]
        );
        assert!(name(&path).starts_with("inspection-report-2"));
    }
}
