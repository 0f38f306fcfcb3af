//! Unmounting and deleting what pods leave behind.

use rustix::mount::UnmountFlags;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) fn is_mount_point(path: &Path) -> bool {
    let Ok(here) = fs::metadata(path) else { return false };
    path.parent().and_then(|p| fs::metadata(p).ok()).is_some_and(|above| above.dev() != here.dev())
}

/// Whether something is mounted exactly on `path`, even a bind of the same file system.
pub(crate) fn is_bind(path: &Path) -> bool {
    mounts_below(path).is_ok_and(|all| all.iter().any(|m| m == path))
}

/// Mount points at or below `dir`, deepest first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut out: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|path| path.starts_with(dir))
        .collect();
    out.reverse();
    Ok(out)
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(field: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = field.bytes();
    while let Some(b) = bytes.next() {
        if b == b'\\' {
            let digits: Vec<u8> = bytes.by_ref().take(3).collect();
            let value = digits.iter().fold(0u32, |v, d| v * 8 + u32::from(d.wrapping_sub(b'0')));
            out.push(u8::try_from(value).unwrap_or(b'?'));
        } else {
            out.push(b);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unmounts everything at or below `dir`.
pub(crate) fn unmount_below(dir: &Path) -> io::Result<()> {
    for path in mounts_below(dir)? {
        if rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW).is_err() {
            rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Unmounts and deletes `dir`. A bind mount that stayed would lead the deletion into the host's own files: then nothing is deleted.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    unmount_below(dir)?;
    if let Some(left) = mounts_below(dir)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
