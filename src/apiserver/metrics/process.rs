//! `process_*`: this process as the kernel sees it.

use super::text::{Kind, Text};
use mini_sys::usage::Usage;

pub(super) fn write(out: &mut Text) {
    let used = Usage::own();
    let rows = [
        ("process_resident_memory_bytes", Kind::Gauge, "Memory in RAM.", used.resident),
        ("process_virtual_memory_bytes", Kind::Gauge, "Addresses in use.", used.addresses),
        ("process_start_time_seconds", Kind::Gauge, "Start, in seconds since the epoch.", used.started),
        ("process_open_fds", Kind::Gauge, "Open files.", used.open_files),
        ("process_max_fds", Kind::Gauge, "Files that may be open.", used.most_files),
        ("process_cpu_seconds_total", Kind::Counter, "Time of processors spent.", used.cpu_seconds),
    ];
    for (name, kind, help, value) in rows {
        if let Some(value) = value {
            out.family(name, kind, help);
            out.sample(&[], value);
        }
    }
}
