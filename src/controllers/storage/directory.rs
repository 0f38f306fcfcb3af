//! The folders of volumes: made for everybody, removed without ever leaving them.
//!
//! What is in a volume is its pods' to choose, so nothing in it is trusted: every step is taken relative to an open
//! folder, links are removed and not followed, a mount point stops the removal, and depth costs no stack.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the folder `name` in `root`, open to any user of a container. It may be there already.
pub(super) fn make(root: &Path, name: &str) -> io::Result<()> {
    // Users of the machine have no business in it.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    let root = open(root)?;
    match rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = rustix::fs::openat(&root, name, FOLDER, Mode::empty())?;
    // Not left to the umask.
    Ok(rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o777))?)
}

/// Removes the folder `name` in `root` with all that is in it. It may be gone already.
pub(super) fn remove(root: &Path, name: &str) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let root = match open(root) {
        Err(error) if gone(&error) => return Ok(()),
        root => root?,
    };
    let name = CString::new(name)?;
    let top = match beneath(&root, &name) {
        Err(error) if gone(&error) => return Ok(()),
        top => top?,
    };
    empty(&top)?;
    Ok(rustix::fs::unlinkat(&root, &name, AtFlags::REMOVEDIR)?)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?)
}

/// Opens a folder that is really there: neither a link nor a mount point.
fn beneath(parent: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, FOLDER, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(io::Error::other(format!("{} is a mount point", name.to_string_lossy()))),
        opened => Ok(opened?),
    }
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what is no folder; tells whether it was one.
fn unlink(parent: &OwnedFd, name: &CString) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR) => Ok(true),
        Err(error) => {
            let error = io::Error::from(error);
            Err(io::Error::new(error.kind(), format!("cannot remove {}: {error}", name.to_string_lossy())))
        }
    }
}

/// Folders inside folders are moved up to the top first, so that there is only ever one level.
fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut number = 0_u64;
    loop {
        let names = entries(top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            if !unlink(top, name)? {
                continue;
            }
            let folder = beneath(top, name)?;
            for inner in entries(&folder)? {
                if unlink(&folder, &inner)? {
                    lift(&folder, &inner, top, &mut number)?;
                }
            }
            rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn lift(folder: &OwnedFd, name: &CString, top: &OwnedFd, number: &mut u64) -> io::Result<()> {
    loop {
        let free = format!(".removed-{number}");
        *number += 1;
        match rustix::fs::renameat_with(folder, name, top, &free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            Err(Errno::BUSY) => {
                return Err(io::Error::other(format!("{} is a mount point", name.to_string_lossy())));
            }
            moved => return Ok(moved?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mini-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_is_open_to_all_and_removed_with_its_content_alone() {
        let temporary = Temporary::new("volumes");
        let (root, outside) = (temporary.0.join("root"), temporary.0.join("outside"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        make(&root, "v").unwrap();
        make(&root, "v").unwrap();
        let volume = root.join("v");
        assert_eq!(volume.metadata().unwrap().permissions().mode() & 0o7777, 0o777);
        std::fs::create_dir_all(volume.join("a/b/c")).unwrap();
        std::fs::create_dir_all(volume.join(".removed-0/x")).unwrap();
        std::fs::write(volume.join("a/b/file"), "x").unwrap();
        symlink(&outside, volume.join("a/link")).unwrap();
        symlink(&outside, volume.join("link")).unwrap();
        remove(&root, "v").unwrap();
        assert!(!volume.exists());
        assert!(outside.join("kept").exists());
        remove(&root, "v").unwrap();
        symlink(&outside, root.join("w")).unwrap();
        assert!(remove(&root, "w").is_err(), "a link in place of the folder is not followed");
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn depth_does_not_matter() {
        let temporary = Temporary::new("depth");
        make(&temporary.0, "v").unwrap();
        let mut at = open(&temporary.0.join("v")).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        remove(&temporary.0, "v").unwrap();
        assert!(!temporary.0.join("v").exists());
    }
}
