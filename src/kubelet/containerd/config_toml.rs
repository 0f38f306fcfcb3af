//! `config.toml` for the private containerd.

use super::Config;
use std::fmt::Write;
use std::path::Path;

/// Left out to start fast and to idle at nothing: snapshotters never used, the restart monitor that wakes every ten
/// seconds, tracing, a folder of programs in `/opt`.
const DISABLED: &[&str] = &[
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.nri.v1.nri",
];

/// `CAP_SYS_RESOURCE`, needed to lower an `oom_score_adj`.
const CAP_SYS_RESOURCE: u32 = 24;
/// `f_type` of overlayfs, on which overlayfs cannot be stacked.
const OVERLAYFS_MAGIC: i64 = 0x794c_7630;

/// Whether cgroups are systemd's to make.
#[must_use]
pub fn cgroup_driver_is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The snapshotter that works on the file system of `dir`.
pub(crate) fn snapshotter(dir: &Path) -> &'static str {
    match rustix::fs::statfs(dir) {
        Ok(s) if s.f_type == OVERLAYFS_MAGIC => "native",
        _ => "overlayfs",
    }
}

pub(super) fn render(config: &Config) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let path = |p: &Path| quote(&p.to_string_lossy());
    let disabled: Vec<String> = DISABLED.iter().map(|d| quote(d)).collect();
    let restricted = !has_capability(CAP_SYS_RESOURCE);
    let mut out = String::from("# Written by mini at each start; changes are lost.\nversion = 2\n");
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!("root = {}", path(&config.home().join("root"))));
    line(format!("state = {}", path(&config.state().join("state"))));
    line(format!("disabled_plugins = [{}]", disabled.join(", ")));
    line(format!("oom_score = {}", if restricted { 0 } else { -999 }));
    line(format!("[grpc]\n  address = {}", path(&config.socket())));
    line(format!("[ttrpc]\n  address = {}", path(&config.state().join("containerd.sock.ttrpc"))));
    line("[debug]\n  level = \"warn\"".to_owned());
    line("[plugins.\"io.containerd.grpc.v1.cri\"]".to_owned());
    line(format!("  sandbox_image = {}", quote(&config.sandbox_image)));
    line(format!("  restrict_oom_score_adj = {restricted}"));
    line("  stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\"".to_owned());
    // Its statistics are of no use to us; the least it takes is a whole day.
    line("  stats_collect_period = 86400".to_owned());
    line("  tolerate_missing_hugetlb_controller = true".to_owned());
    line("  disable_hugetlb_controller = true".to_owned());
    line("  max_container_log_line_size = 16384".to_owned());
    // Below our own directory `reset` finds them even when nothing that remembers them is left.
    line("  netns_mounts_under_state_dir = true".to_owned());
    line("  [plugins.\"io.containerd.grpc.v1.cri\".containerd]".to_owned());
    line(format!("    snapshotter = {}", quote(snapshotter(&config.home()))));
    line("    default_runtime_name = \"runc\"".to_owned());
    line("    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]".to_owned());
    line("      runtime_type = \"io.containerd.runc.v2\"".to_owned());
    line("      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]".to_owned());
    line(format!("        SystemdCgroup = {}", cgroup_driver_is_systemd()));
    line("  [plugins.\"io.containerd.grpc.v1.cri\".cni]".to_owned());
    line(format!("    bin_dir = {}", path(&config.cni_bin_dir)));
    line(format!("    conf_dir = {}", path(&config.cni_conf_dir)));
    line("    max_conf_num = 1".to_owned());
    line("  [plugins.\"io.containerd.grpc.v1.cri\".registry]".to_owned());
    line(format!("    config_path = {}", path(&config.certs_dir())));
    out
}

fn has_capability(number: u32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|l| l.strip_prefix("CapEff:"))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .is_some_and(|bits| bits & (1 << number) != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn paths_are_quoted_and_private() {
        let config = Config {
            binary: None,
            data_dir: PathBuf::from("/d\"x"),
            run_dir: PathBuf::from("/r"),
            sandbox_image: "mini.local/mini:1".into(),
            cni_bin_dir: PathBuf::from("/d/cni/bin"),
            cni_conf_dir: PathBuf::from("/d/cni/net.d"),
        };
        let text = render(&config);
        assert!(text.contains("root = \"/d\\\"x/containerd/root\""), "{text}");
        assert!(text.contains("address = \"/r/containerd/containerd.sock\""), "{text}");
        assert!(text.contains("sandbox_image = \"mini.local/mini:1\""), "{text}");
    }
}
