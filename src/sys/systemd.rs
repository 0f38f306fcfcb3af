//! systemd, where it runs the machine.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Is systemd this machine's (or container's) first process?
#[must_use]
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Stops a unit, and waits until it has; one that is not there is stopped.
///
/// # Errors
/// systemctl cannot be run or says no.
pub fn stop(unit: &str) -> io::Result<()> {
    let output = Command::new("systemctl").args(["stop", "--quiet", unit]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains("not loaded") {
        return Ok(());
    }
    Err(io::Error::other(said.trim().to_owned()))
}
