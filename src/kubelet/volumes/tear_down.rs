//! Unmounting and deleting what pods leave behind, off the runtime's threads.

use mini_sys::mounts::{self, Left};
use std::path::Path;

/// Unmounts everything below `dir`.
pub(crate) async fn unmount_below(dir: &Path) -> Result<(), String> {
    aside(dir, mounts::unmount_below).await
}

/// Unmounts what is below `dir` and deletes it. Never deletes through a mount: one that stays is left, and named in the error.
pub(crate) async fn remove(dir: &Path) -> Result<(), String> {
    aside(dir, mounts::remove).await
}

async fn aside(dir: &Path, work: fn(&Path) -> Left) -> Result<(), String> {
    let dir = dir.to_owned();
    let left = tokio::task::spawn_blocking(move || work(&dir)).await.map_err(|e| e.to_string())?;
    match left.first() {
        None => Ok(()),
        Some((path, error)) => {
            let others = if left.len() > 1 { format!(", and {} more", left.len() - 1) } else { String::new() };
            Err(format!("{}: {error}{others}", path.display()))
        }
    }
}
