//! What the machine as a whole uses, from `/proc`: it says the same whichever cgroup this process is in.

use std::fs;
use std::path::Path;

/// The kernel counts CPU time in hundredths of a second, on every architecture we run on.
const TICK: u64 = 10_000_000;

/// Bytes, but for what says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Seconds since 1970.
    pub(crate) booted: i64,
    /// Nanoseconds of all processors since then.
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) available: u64,
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) disk: Disk,
    pub(crate) most_processes: u64,
    pub(crate) processes: u64,
}

/// A network interface: received and sent, in bytes and in packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) received: u64,
    pub(crate) receive_packets: u64,
    pub(crate) receive_errors: u64,
    pub(crate) receive_drops: u64,
    pub(crate) sent: u64,
    pub(crate) send_packets: u64,
    pub(crate) send_errors: u64,
    pub(crate) send_drops: u64,
}

/// The file system of the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

pub(crate) fn read(data_dir: &Path) -> Machine {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let number = |path: &str| text(path).trim().parse().unwrap_or_default();
    let (stat, memory, pages) = (text("/proc/stat"), text("/proc/meminfo"), text("/proc/vmstat"));
    let of_memory = |name: &str| field(&memory, name) * 1024;
    let used = of_memory("MemTotal:").saturating_sub(of_memory("MemFree:"));
    let working_set = used.saturating_sub(of_memory("Inactive(file):"));
    Machine {
        booted: i64::try_from(field(&stat, "btime")).unwrap_or_default(),
        cpu: busy(&stat),
        memory: used,
        available: of_memory("MemTotal:").saturating_sub(working_set),
        working_set,
        rss: of_memory("AnonPages:"),
        page_faults: field(&pages, "pgfault"),
        major_page_faults: field(&pages, "pgmajfault"),
        interfaces: interfaces(None),
        disk: disk(data_dir),
        most_processes: number("/proc/sys/kernel/pid_max"),
        // Running and all, as the fourth word has them: `2/345`.
        processes: text("/proc/loadavg")
            .split_whitespace()
            .nth(3)
            .and_then(|both| both.split_once('/')?.1.parse().ok())
            .unwrap_or_default(),
    }
}

/// The interfaces of the network that a process is in, or ours; loopback does not count.
pub(crate) fn interfaces(process: Option<u32>) -> Vec<Interface> {
    let of = process.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = fs::read_to_string(format!("/proc/{of}/net/dev")).unwrap_or_default();
    text.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

fn interface(line: &str) -> Option<Interface> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let number = |at: usize| numbers.get(at).copied();
    Some(Interface {
        name: name.trim().to_owned(),
        received: number(0)?,
        receive_packets: number(1)?,
        receive_errors: number(2)?,
        receive_drops: number(3)?,
        sent: number(8)?,
        send_packets: number(9)?,
        send_errors: number(10)?,
        send_drops: number(11)?,
    })
}

/// Nanoseconds in which a processor was neither idle nor waiting.
fn busy(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is in user and nice already.
    let busy: u64 = ticks.iter().take(8).enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).map(|(_, t)| t).sum();
    busy.saturating_mul(TICK)
}

fn disk(path: &Path) -> Disk {
    let Ok(found) = rustix::fs::statvfs(path) else { return Disk::default() };
    Disk {
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
        used: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize),
        inodes: found.f_files,
        inodes_free: found.f_ffree,
    }
}

/// The number behind `name` at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(' '));
    lines.next().and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used() {
        assert_eq!(busy("cpu  100 10 50 9000 900 1 2 3 77 8\ncpu0 1 1 1 1\n"), 166 * TICK);
        assert_eq!(busy(""), 0);
    }

    #[test]
    fn interfaces_are_read() {
        let line = "  eth0: 1000 10 1 3 0 0 0 0 2000 20 2 4 0 0 0 0";
        let want = Interface {
            name: "eth0".into(),
            received: 1000,
            receive_packets: 10,
            receive_errors: 1,
            receive_drops: 3,
            sent: 2000,
            send_packets: 20,
            send_errors: 2,
            send_drops: 4,
        };
        assert_eq!(interface(line), Some(want));
        assert_eq!(interface(" face |bytes    packets errs"), None);
    }

    #[test]
    fn this_machine_uses_something() {
        let machine = read(Path::new("/"));
        assert!(machine.cpu > 0 && machine.booted > 0, "{machine:?}");
        assert!(machine.working_set > 0 && machine.working_set <= machine.memory, "{machine:?}");
        assert!(machine.disk.capacity >= machine.disk.available && machine.disk.capacity > 0, "{machine:?}");
    }
}
