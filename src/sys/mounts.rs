//! Mounts below a directory, and the one way in which directories are deleted: never through a mount.
//!
//! What is mounted below a directory may be the user's own files (a bind mount of the same file system looks like any
//! folder). Invariant: a deletion unmounts first, and does not enter what is still another mount than the one it began in.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What would not go, and why.
pub type Left = Vec<(PathBuf, io::Error)>;

/// Mount points below `directory`, not the directory itself, the deepest and newest first: the order in which they can be unmounted.
#[must_use]
pub fn below(directory: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The kernel's table has no symbolic links in its paths.
    let real = fs::canonicalize(directory);
    parse(&text, real.as_deref().unwrap_or(directory))
}

fn parse(text: &str, directory: &Path) -> Vec<PathBuf> {
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(directory) && point != directory).collect();
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Unmounts everything below `directory`, even what is in use.
pub fn unmount_below(directory: &Path) -> Left {
    let mut left = Left::new();
    for point in below(directory) {
        if let Err(error) = unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            left.push((point, error.into()));
        }
    }
    left
}

/// Whether something is mounted exactly on `path`, even a bind of the same file system.
#[must_use]
pub fn is_mount_point(path: &Path) -> bool {
    let mount =
        |path: &Path| mount_of(&openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?);
    let Some(parent) = path.parent() else { return true };
    matches!((mount(path), fs::canonicalize(parent).and_then(|p| mount(&p))), (Ok(here), Ok(above)) if here != above)
}

/// Deletes a directory, or file, with all that is in it, unmounting what is mounted there. A mount that stays is left as it is.
pub fn remove(path: &Path) -> Left {
    let mut left = unmount_below(path);
    let outcome = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => open(CWD, parent.as_os_str()).and_then(|parent| {
            let mount = mount_of(&parent)?;
            remove_entry(&parent, name, path, mount, &mut left)
        }),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    note(outcome, path, &mut left);
    left
}

/// Like [`remove`] for everything in a directory; the directory itself stays. It may be a mount point.
pub fn empty(directory: &Path) -> Left {
    let mut left = unmount_below(directory);
    let outcome = open(CWD, directory.as_os_str()).and_then(|fd| {
        let mount = mount_of(&fd)?;
        remove_entries(&fd, directory, mount, &mut left)
    });
    note(outcome, directory, &mut left);
    left
}

fn note(outcome: io::Result<()>, path: &Path, left: &mut Left) {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => left.push((path.to_owned(), error)),
        _ => {}
    }
}

fn open(at: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The id of the mount that an open file is in: the only thing that tells a bind mount from a folder.
fn mount_of(fd: &OwnedFd) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell which mount it is in"))
}

fn remove_entries(directory: &OwnedFd, path: &Path, mount: u64, left: &mut Left) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (name, kind) in names {
        let here = path.join(OsStr::from_bytes(name.as_bytes()));
        let outcome = match kind {
            FileType::Directory | FileType::Unknown => {
                remove_entry(directory, OsStr::from_bytes(name.as_bytes()), &here, mount, left)
            }
            _ => unlink(directory, &name),
        };
        note(outcome, &here, left);
    }
    Ok(())
}

/// Removes one name in an open directory; `path` is what it is called in `left`.
fn remove_entry(parent: &OwnedFd, name: &OsStr, path: &Path, mount: u64, left: &mut Left) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(parent, name, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };
    if mount_of(&directory)? != mount {
        return Err(io::Error::other("something is mounted there still"));
    }
    let before = left.len();
    remove_entries(&directory, path, mount, left)?;
    drop(directory);
    // What it holds still has been named already.
    if left.len() > before { Ok(()) } else { Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?) }
}

fn unlink(directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    Ok(unlinkat(directory, name, AtFlags::empty())?)
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
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
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn mounts_come_deepest_first() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /d/a rw - tmpfs t rw\n3 1 0:6 / /d/a/b\\040c rw - tmpfs t rw\n\
                    4 1 0:7 / /dx rw - tmpfs t rw\n5 1 0:8 / /d rw - ext4 u rw\n";
        assert_eq!(parse(text, Path::new("/d")), [Path::new("/d/a/b c"), Path::new("/d/a")]);
    }

    /// `real` with a bind mount of `precious` (the same file system) inside, `link` to `real`; `None` without the right to mount.
    fn place(name: &str) -> Option<PathBuf> {
        let place = std::env::temp_dir().join(format!("mini-mounts-{}-{name}", std::process::id()));
        fs::create_dir_all(place.join("precious/deep")).unwrap();
        fs::write(place.join("precious/deep/file"), "mine").unwrap();
        fs::create_dir_all(place.join("real/pod/a b/c")).unwrap();
        fs::write(place.join("real/pod/file"), "").unwrap();
        fs::write(place.join("real/pod/target"), "").unwrap();
        symlink(place.join("precious"), place.join("real/pod/link")).unwrap();
        symlink("real", place.join("link")).unwrap();
        let bind = |from: &str, to: &str| rustix::mount::mount_bind(place.join(from), place.join(to));
        if bind("precious", "real/pod/a b/c").is_err() || bind("precious/deep/file", "real/pod/target").is_err() {
            fs::remove_dir_all(&place).unwrap();
            return None;
        }
        Some(place)
    }

    fn tidy(place: &Path) {
        assert_eq!(fs::read_to_string(place.join("precious/deep/file")).unwrap(), "mine", "deleted through a mount");
        assert!(unmount_below(place).is_empty());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_deletion_below_a_link_unmounts_what_is_mounted_there() {
        let Some(place) = place("link") else { return };
        assert!(is_mount_point(&place.join("link/pod/a b/c")) && is_mount_point(&place.join("link/pod/target")));
        assert!(!is_mount_point(&place.join("link/pod")) && !is_mount_point(&place.join("link/pod/file")));
        assert_eq!(below(&place.join("link")).len(), 2);
        let left = remove(&place.join("link/pod"));
        assert!(left.is_empty() && !place.join("real/pod").exists(), "{left:?}");
        tidy(&place);
    }

    #[test]
    fn what_is_mounted_still_is_left_and_named() {
        let Some(place) = place("left") else { return };
        let real = place.join("real");
        let fd = open(CWD, real.as_os_str()).unwrap();
        let mut left = Left::new();
        remove_entries(&fd, &real, mount_of(&fd).unwrap(), &mut left).unwrap();
        let mut names: Vec<_> = left.iter().map(|(path, _)| path.strip_prefix(&real).unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, [Path::new("pod/a b/c"), Path::new("pod/target")], "{left:?}");
        assert!(!real.join("pod/file").exists() && !real.join("pod/link").exists(), "the rest goes");
        tidy(&place);
    }

    #[test]
    fn a_link_is_deleted_and_not_followed() {
        let Some(place) = place("follow") else { return };
        symlink(place.join("precious"), place.join("alias")).unwrap();
        assert!(remove(&place.join("alias")).is_empty() && !place.join("alias").is_symlink());
        assert!(remove(&place.join("nothing")).is_empty(), "what is gone already is fine");
        tidy(&place);
    }
}
