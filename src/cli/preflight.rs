//! What a start needs of the machine, and the note a failed one leaves.

use anyhow::Context as _;
use mini_config::Config;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Checks the machine and makes the directories.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<()> {
    config.check_machine()?;
    directory(&config.data_dir, 0o700)?;
    directory(&config.run_dir, 0o755)
}

fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

/// Where a server that could not start says why, for `start` and `status` to show.
fn failure_file(config: &Config) -> PathBuf {
    config.run_dir.join("failure")
}

pub(crate) fn note_failure(config: &Config, why: &str) {
    // Best effort: the same sentence is in the log.
    let _ = directory(&config.run_dir, 0o755);
    let _ = std::fs::write(failure_file(config), why);
}

pub(crate) fn forget_failure(config: &Config) {
    let _ = std::fs::remove_file(failure_file(config));
}

pub(crate) fn last_failure(config: &Config) -> Option<String> {
    std::fs::read_to_string(failure_file(config)).ok().map(|why| why.trim().to_owned()).filter(|why| !why.is_empty())
}
