//! `mini config`: the administrator's kubeconfig.

use crate::output;
use anyhow::{Context as _, bail};
use mini_config::Config;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let path = kubeconfig(config)?;
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    output::print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// The kubeconfig's file, which this user may read.
pub(crate) fn kubeconfig(config: &Config) -> anyhow::Result<PathBuf> {
    let path = config.admin_kubeconfig();
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no cluster in {} yet; make one with `mini start`", config.data_dir.display())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("you may not read {}; use sudo", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
