//! `fsGroup`: gives a volume's files to a group.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

/// Group ownership and group bits for everything below `root`; folders also get setgid, so that new files follow.
pub(super) fn apply(root: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let group = u32::try_from(group).map_err(|_| io::ErrorKind::InvalidInput)?;
    walk(root, group, if read_only { 0o440 } else { 0o660 })
}

fn walk(path: &Path, group: u32, bits: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let mut mode = meta.permissions().mode() | bits;
    if meta.is_dir() {
        mode |= 0o2110;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group, bits)?;
        }
    }
    Ok(())
}
