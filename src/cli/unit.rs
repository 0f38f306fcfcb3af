//! The systemd unit of the default instance, where it is installed.

use anyhow::{Context as _, bail};
use mini_config::Config;
use mini_sys::systemd;
use std::path::Path;
use std::process::Command;

pub(crate) const NAME: &str = "mini.service";
const DIRECTORIES: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

pub(crate) fn is_installed() -> bool {
    systemd::is_running() && DIRECTORIES.iter().any(|directory| Path::new(directory).join(NAME).exists())
}

pub(crate) fn start() -> anyhow::Result<()> {
    let done = Command::new("systemctl").args(["start", "--no-block", NAME]).status();
    if !done.context("cannot run systemctl")?.success() {
        bail!("systemd did not start {NAME}; see `systemctl status mini`");
    }
    Ok(())
}

/// Keeps systemd from starting again a server that failed, or that was just stopped.
pub(crate) fn stop(config: &Config) {
    if config.is_default_instance()
        && is_installed()
        && let Err(error) = systemd::stop(NAME)
    {
        eprintln!("systemd did not stop {NAME}: {error}");
    }
}
