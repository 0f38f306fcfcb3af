//! What this process uses, as the kernel counts it.

use std::fs;

/// The unit of times in `/proc`: the same on every machine that Linux runs on today.
const TICKS: f64 = 100.0;

/// `None`: the kernel does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Time of processors, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Bytes in RAM.
    pub resident: Option<f64>,
    /// Bytes of addresses.
    pub addresses: Option<f64>,
    /// Since the epoch, in seconds.
    pub started: Option<f64>,
    pub open_files: Option<f64>,
    pub most_files: Option<f64>,
}

impl Usage {
    /// As it is now.
    #[must_use]
    pub fn own() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (stat, status, limits, machine) =
            (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"), read("/proc/stat"));
        // The name stands in parentheses and may hold anything; the third field follows it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let line = |text: &str, start: &str| -> Option<f64> {
            text.lines().find_map(|line| line.strip_prefix(start)?.split_whitespace().next()?.parse().ok())
        };
        let booted = line(&machine, "btime ");
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS),
            resident: line(&status, "VmRSS:").map(|kib| kib * 1024.0),
            addresses: line(&status, "VmSize:").map(|kib| kib * 1024.0),
            started: booted.zip(field(22)).map(|(booted, ticks)| booted + ticks / TICKS),
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .and_then(|files| u32::try_from(files.count()).ok())
                .map(f64::from),
            most_files: line(&limits, "Max open files"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        let Usage { cpu_seconds, resident, addresses, started, open_files, most_files } = Usage::own();
        assert!(cpu_seconds.is_some());
        for value in [resident, addresses, started, open_files, most_files] {
            assert!(value.unwrap() > 0.0);
        }
        assert!(resident.unwrap() < addresses.unwrap());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - started.unwrap()).abs() < 3600.0);
    }
}
