//! Mounts below a directory.

use rustix::mount::{UnmountFlags, unmount};
use std::path::{Path, PathBuf};

/// Mount points below `directory`, not the directory itself, the deepest and newest first: the order in which they can be unmounted.
#[must_use]
pub fn below(directory: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse(&text, directory)
}

fn parse(text: &str, directory: &Path) -> Vec<PathBuf> {
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut points: Vec<_> = points.filter(|point| point.starts_with(directory) && point != directory).collect();
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Unmounts everything below `directory`, even what is in use. Returns what would not go, and why.
pub fn unmount_below(directory: &Path) -> Vec<(PathBuf, std::io::Error)> {
    let mut failed = Vec::new();
    for point in below(directory) {
        if let Err(error) = unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            failed.push((point, error.into()));
        }
    }
    failed
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_come_deepest_first() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /d/a rw - tmpfs t rw\n3 1 0:6 / /d/a/b\\040c rw - tmpfs t rw\n\
                    4 1 0:7 / /dx rw - tmpfs t rw\n5 1 0:8 / /d rw - ext4 u rw\n";
        assert_eq!(parse(text, Path::new("/d")), [Path::new("/d/a/b c"), Path::new("/d/a")]);
    }
}
