//! `mini pause`: the process that holds a pod's namespaces open.
//!
//! As PID 1 of the pod's process namespace it also reaps orphans. Invariant: it sleeps in the kernel and wakes only for
//! signals.

use rustix::process::{Pid, WaitOptions, wait};
use std::process::ExitCode;

/// Waits for SIGTERM or SIGINT, reaping every child that ends.
#[must_use]
pub fn pause() -> ExitCode {
    match signals() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mini pause: {error}");
            ExitCode::FAILURE
        }
    }
}

fn signals() -> std::io::Result<()> {
    // Orphans come here even when a pod shares its process namespace and this is not PID 1 of the machine.
    if rustix::process::getpid() != Pid::INIT {
        let _ = rustix::process::set_child_subreaper(Some(Pid::INIT));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut ended = signal(SignalKind::child())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        reap();
        loop {
            tokio::select! {
                _ = ended.recv() => reap(),
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
            }
        }
    })
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
