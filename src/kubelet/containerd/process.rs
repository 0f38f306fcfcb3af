//! One process that outlives us: named by pid and start time, so that a reused pid is never taken for it.

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// A process, ours by birth or by adoption.
#[derive(Clone)]
pub(super) struct Process {
    pid: u32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`.
    started: u64,
    child: Arc<Mutex<Option<Child>>>,
}

impl Process {
    pub(super) fn of_child(child: Child) -> io::Result<Self> {
        let pid = child.id();
        let started = start_time(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
        Ok(Self { pid, started, child: Arc::new(Mutex::new(Some(child))) })
    }

    /// The process that `path` names, if it still lives.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let process =
            Self { pid: pid.parse().ok()?, started: started.parse().ok()?, child: Arc::new(Mutex::new(None)) };
        process.is_alive().then_some(process)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, format!("{} {}\n", self.pid, self.started))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn is_alive(&self) -> bool {
        if let Some(child) = self.child.lock().as_mut()
            && matches!(child.try_wait(), Ok(Some(_)) | Err(_))
        {
            return false;
        }
        start_time(self.pid) == Some(self.started)
    }

    /// Resolves when the process has ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let process = self.clone();
        async move {
            while process.is_alive() {
                // A pidfd costs nothing while it waits; without one (old kernels) look once a second.
                match process.pidfd() {
                    Some(fd) => {
                        let _ = fd.readable().await;
                    }
                    None => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        }
    }

    /// SIGTERM, then SIGKILL after `patience`.
    pub(super) async fn stop(&self, patience: Duration) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        let begun = Instant::now();
        let mut signal = Signal::TERM;
        while self.is_alive() {
            let _ = rustix::process::kill_process(pid, signal);
            let left = patience.saturating_sub(begun.elapsed()).max(Duration::from_secs(1));
            if tokio::time::timeout(left, self.ended()).await.is_ok() {
                return;
            }
            signal = Signal::KILL;
        }
    }

    #[expect(deprecated, reason = "its replacement is unsafe; an OwnedFd keeps what that asks for")]
    fn pidfd(&self) -> Option<AsyncFd<rustix::fd::OwnedFd>> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        AsyncFd::new(rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?).ok()
    }
}

/// `None` for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let dir = std::env::temp_dir().join(format!("mini-process-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("process");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let process = Process::of_child(Command::new("sleep").arg("60").spawn().unwrap()).unwrap();
            process.write(&path).unwrap();
            assert!(Process::read(&path).is_some());
            fs::write(&path, format!("{} {}\n", process.pid, process.started + 1)).unwrap();
            assert!(Process::read(&path).is_none(), "a reused pid is not the process");
            process.stop(Duration::from_secs(5)).await;
            assert!(!process.is_alive());
        });
        fs::remove_dir_all(&dir).unwrap();
    }
}
