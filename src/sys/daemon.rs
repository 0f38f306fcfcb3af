//! A process that outlives the command that started it.

use crate::process::Process;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The argument with which the executable is called again to become a session leader, before the real arguments.
pub const SESSION: &str = "__session";

/// What glibc's allocator reads at a start: each thread keeps more of what it frees, up to these sizes. Requests begin on
/// one thread and end on another, and a fifth of their time went into the locks in between. Costs under a MiB.
pub const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=500:glibc.malloc.tcache_max=8192");

/// Starts this executable again, in a session of its own, with its output appended to `log` (made with mode 0600). The
/// child is a daemon once its parent exits; until then the parent can see it end.
///
/// # Errors
/// When the log cannot be opened or the process not started.
pub fn spawn<S: AsRef<OsStr>>(arguments: &[S], log: &Path) -> std::io::Result<(Child, Process)> {
    let output = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    // The child calls setsid itself: that needs no unsafe code between fork and exec.
    command.arg(SESSION).args(arguments).env(ALLOCATOR.0, ALLOCATOR.1);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).current_dir("/");
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(std::io::Error::other)?;
    let process = Process::of(pid).ok_or_else(|| std::io::Error::other("it ended at once"))?;
    Ok((child, process))
}

/// The child's part: leaves the terminal's session, so that closing it ends nothing.
pub fn become_session_leader() {
    // Fails only where it is a leader already.
    let _ = rustix::process::setsid();
}
