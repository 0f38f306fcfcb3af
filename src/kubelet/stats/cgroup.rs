//! What a cgroup says its processes use, in either version of the hierarchy.

use std::fs;
use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 writes "no limit" as the largest whole number of pages.
const UNLIMITED: u64 = 1 << 62;

/// Bytes, but for what says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Nanoseconds since the group was made.
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    /// Memory without the file pages that nobody has touched lately, which the kernel takes back first.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) processes: u64,
}

/// None: there is no such group (any more).
pub(crate) fn read(group: &str) -> Option<Usage> {
    usage(Path::new(ROOT), group.trim_start_matches('/'))
}

/// Any process of the group.
pub(crate) fn process(group: &str) -> Option<u32> {
    let root = Path::new(ROOT);
    let base = if unified(root) { root.to_owned() } else { root.join("memory") };
    let text = fs::read_to_string(base.join(group.trim_start_matches('/')).join("cgroup.procs")).ok()?;
    text.lines().next()?.parse().ok()
}

fn unified(root: &Path) -> bool {
    root.join("cgroup.controllers").exists()
}

fn usage(root: &Path, group: &str) -> Option<Usage> {
    let text = |path: &str| fs::read_to_string(root.join(path)).ok();
    let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
    if unified(root) {
        let stat = text(&format!("{group}/memory.stat"))?;
        let memory = number(&format!("{group}/memory.current"))?;
        return Some(Usage {
            cpu: field(&text(&format!("{group}/cpu.stat"))?, "usage_usec").saturating_mul(1000),
            memory,
            working_set: memory.saturating_sub(field(&stat, "inactive_file")),
            rss: field(&stat, "anon"),
            page_faults: field(&stat, "pgfault"),
            major_page_faults: field(&stat, "pgmajfault"),
            limit: number(&format!("{group}/memory.max")),
            processes: number(&format!("{group}/pids.current")).unwrap_or_default(),
        });
    }
    let stat = text(&format!("memory/{group}/memory.stat"))?;
    let memory = number(&format!("memory/{group}/memory.usage_in_bytes"))?;
    Some(Usage {
        cpu: number(&format!("cpuacct/{group}/cpuacct.usage"))?,
        memory,
        working_set: memory.saturating_sub(field(&stat, "total_inactive_file")),
        rss: field(&stat, "total_rss"),
        page_faults: field(&stat, "total_pgfault"),
        major_page_faults: field(&stat, "total_pgmajfault"),
        limit: number(&format!("memory/{group}/memory.limit_in_bytes")).filter(|limit| *limit < UNLIMITED),
        processes: number(&format!("pids/{group}/pids.current")).unwrap_or_default(),
    })
}

/// The number behind `name` in lines of `name number`; zero where there is none.
fn field(text: &str, name: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    number.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    const WANT: Usage = Usage {
        cpu: 1_500_000,
        memory: 9000,
        working_set: 8000,
        rss: 4000,
        page_faults: 7,
        major_page_faults: 1,
        limit: None,
        processes: 3,
    };

    #[test]
    fn version_1() {
        let root = tempfile::tempdir().unwrap();
        let stat =
            "rss 1\ninactive_file 5\ntotal_rss 4000\ntotal_pgfault 7\ntotal_pgmajfault 1\ntotal_inactive_file 1000\n";
        put(
            root.path(),
            &[
                ("memory/a/b/memory.stat", stat),
                ("memory/a/b/memory.usage_in_bytes", "9000\n"),
                ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cpuacct/a/b/cpuacct.usage", "1500000\n"),
                ("pids/a/b/pids.current", "3\n"),
            ],
        );
        assert_eq!(usage(root.path(), "a/b"), Some(WANT));
        assert_eq!(usage(root.path(), "a/c"), None);
        put(root.path(), &[("memory/a/b/memory.limit_in_bytes", "65536\n")]);
        assert_eq!(usage(root.path(), "a/b").unwrap().limit, Some(65536));
    }

    #[test]
    fn version_2() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("cgroup.controllers", "cpu memory pids\n"),
                ("a/cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
                ("a/memory.stat", "anon 4000\ninactive_file 1000\npgfault 7\npgmajfault 1\n"),
                ("a/memory.current", "9000\n"),
                ("a/memory.max", "max\n"),
                ("a/pids.current", "3\n"),
            ],
        );
        assert_eq!(usage(root.path(), "a"), Some(WANT));
        put(root.path(), &[("a/memory.max", "65536\n")]);
        assert_eq!(usage(root.path(), "a").unwrap().limit, Some(65536));
    }
}
