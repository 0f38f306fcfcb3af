//! Processes by id and start time, so that a reused id is never taken for the old process.

use rustix::process::{Pid, Signal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One process, told apart from later ones with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot.
    pub start_time: u64,
}

impl Process {
    /// The process that has this id now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)? })
    }

    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self { pid, start_time: start_time(pid).unwrap_or_default() }
    }

    /// Does it run still? A zombie does not, unless another of its threads still holds files, locks and ports.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match stat(self.pid) {
            Some((state, start)) if start == self.start_time => !matches!(state, 'Z' | 'X') || self.threads() > 1,
            _ => false,
        }
    }

    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count)
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// SIGTERM, then SIGKILL when it has not ended after `grace`. True when it has ended.
    #[must_use]
    pub fn end(&self, grace: Duration) -> bool {
        self.signal(Signal::TERM);
        if self.wait(grace) {
            return true;
        }
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5))
    }

    /// Waits until it has ended, or for `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// The process that started it, or that took it over.
    #[must_use]
    pub fn parent(&self) -> Option<i32> {
        let text = std::fs::read(format!("/proc/{}/stat", self.pid)).ok()?;
        let text = String::from_utf8_lossy(&text);
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// Its command line.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let bytes = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes.split(|b| *b == 0).filter(|a| !a.is_empty()).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
    }

    /// The name the kernel has for it, at most 15 bytes.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.pid)
    }

    /// Its executable, if it may be seen.
    #[must_use]
    pub fn executable(&self) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }
}

/// All processes that can be seen.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return Vec::new() };
    directory.flatten().filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?)).collect()
}

pub(crate) fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

/// State and start time. The name between parentheses may hold anything, so fields are counted from its end.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The effective capabilities of this process, by number.
#[must_use]
pub fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> number & 1 == 1)
}

/// `CAP_SYS_RESOURCE`: needed to lower a process' OOM score.
pub const CAP_SYS_RESOURCE: u32 = 24;
/// `CAP_NET_ADMIN`
pub const CAP_NET_ADMIN: u32 = 12;
/// `CAP_SYS_ADMIN`
pub const CAP_SYS_ADMIN: u32 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().try_into().unwrap()).unwrap();
        assert!(process.is_alive());
        assert!(!Process::current().arguments().is_empty());
        assert!(!Process { start_time: process.start_time + 1, ..process }.is_alive());
        assert!(process.end(Duration::from_secs(5)), "a zombie has ended");
        child.wait().unwrap();
        assert!(Process::of(process.pid).is_none());
        assert!(all().contains(&Process::current()));
    }
}
