//! Writes a set of files so that readers see the old set or the new one, never a mixture.
//!
//! The files live in a folder named by time; `..data` points to it and is swapped by rename; each name at the top is a
//! link through `..data`. Upstream's layout, which programs that watch for changes rely on.

use super::owner;
use super::payload::Files;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings `dir` to exactly `files`; does nothing when it is already so.
pub(super) fn write(dir: &Path, files: &Files, fs_group: Option<i64>) -> io::Result<()> {
    let current = fs::read_link(dir.join(DATA)).ok().map(|name| dir.join(name));
    if current.as_deref().is_some_and(|current| same(current, files)) {
        return Ok(());
    }
    let fresh = new_folder(dir)?;
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.bytes)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
        if let Some(user) = file.user {
            chown(&target, Some(user), None)?;
        }
    }
    if let Some(group) = fs_group {
        owner::apply(&fresh, group, true)?;
    }
    let _ = fs::remove_file(dir.join(DATA_NEW));
    symlink(fresh.file_name().unwrap_or_default(), dir.join(DATA_NEW))?;
    fs::rename(dir.join(DATA_NEW), dir.join(DATA))?;

    let tops: BTreeSet<PathBuf> = files
        .keys()
        .filter_map(|p| match Path::new(p).components().next() {
            Some(Component::Normal(top)) => Some(PathBuf::from(top)),
            _ => None,
        })
        .collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with("..");
        if !hidden && !tops.contains(Path::new(&name)) {
            fs::remove_file(entry.path())?;
        }
        // The set before, and what a write that was cut short left.
        if hidden && entry.path() != fresh && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn new_folder(dir: &Path) -> io::Result<PathBuf> {
    let now = jiff::Zoned::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    for _ in 0..16 {
        let path = dir.join(format!("..{now}.{}", rand::random::<u32>()));
        match fs::create_dir(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn same(current: &Path, files: &Files) -> bool {
    let mut found = BTreeSet::new();
    if collect(current, Path::new(""), &mut found).is_err() {
        return false;
    }
    found.len() == files.len()
        && files.iter().all(|(path, file)| {
            found.contains(Path::new(path)) && fs::read(current.join(path)).is_ok_and(|bytes| bytes == file.bytes)
        })
}

fn collect(root: &Path, below: &Path, out: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, out)?;
        } else {
            out.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(path, text)| ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o640, user: None }))
            .collect()
    }

    #[test]
    fn updates_swap_and_clean() {
        let dir = std::env::temp_dir().join(format!("mini-atomic-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        write(&dir, &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        fs::create_dir(dir.join("..2020_01_01_00_00_00.7")).unwrap();
        let before = fs::read_link(dir.join(DATA)).unwrap();
        write(&dir, &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), before, "nothing changed, nothing written");
        write(&dir, &files(&[("a", "3")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join("d").exists() && !dir.join(before).exists());
        assert!(!dir.join("..2020_01_01_00_00_00.7").exists(), "left by a write that was cut short");
        fs::remove_dir_all(&dir).unwrap();
    }
}
