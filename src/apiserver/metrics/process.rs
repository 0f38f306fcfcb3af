//! `process_*`: this process as the kernel sees it.

use super::text::{Kind, Text};
use std::fs;

/// The unit of times in `/proc`: the same on every machine that Linux runs on today.
const TICKS: f64 = 100.0;
const PAGE: u64 = 4096;

pub(super) fn write(out: &mut Text) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name stands in parentheses and may hold anything; the third field follows it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<u32>().ok());
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            out.family(name, Kind::Gauge, help);
            out.sample(&[], value);
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let number = |value: u64| value as f64;
    let memory = field(24).map(|pages| number(pages * PAGE));
    gauge("process_resident_memory_bytes", "Memory in RAM.", memory);
    gauge("process_virtual_memory_bytes", "Addresses in use.", field(23).map(number));
    let started = boot.zip(field(22)).map(|(boot, ticks)| f64::from(boot) + number(ticks) / TICKS);
    gauge("process_start_time_seconds", "Start, in seconds since the epoch.", started);
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    gauge("process_open_fds", "Open files.", open.map(|count| number(count as u64)));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    gauge("process_max_fds", "Files that may be open.", most);
    if let Some(ticks) = field(14).zip(field(15)).map(|(user, system)| user + system) {
        out.family("process_cpu_seconds_total", Kind::Counter, "Time of processors spent.");
        out.sample(&[], number(ticks) / TICKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_files() {
        let mut out = Text::default();
        write(&mut out);
        let text = out.finish();
        for name in ["resident_memory_bytes", "virtual_memory_bytes", "start_time_seconds", "open_fds", "max_fds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} "))).unwrap();
            assert!(line.parse::<f64>().unwrap() > 0.0, "{name} {line}");
        }
        assert!(text.contains("process_cpu_seconds_total "), "{text}");
    }
}
