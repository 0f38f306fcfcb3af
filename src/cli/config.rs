//! `mini config`: the administrator's kubeconfig.

use crate::admin_client::{AdminClient, block_on};
use crate::output;
use anyhow::{Context as _, bail};
use mini_config::Config;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let path = kubeconfig(config)?;
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    output::print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Where this process, and those it becomes or starts, can read the kubeconfig: the file, or for members of group `mini`
/// a copy in memory of what the server says.
pub(crate) fn kubeconfig(config: &Config) -> anyhow::Result<PathBuf> {
    let path = config.admin_kubeconfig();
    match File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no cluster in {} yet; make one with `mini start`", config.data_dir.display())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            match block_on(AdminClient::new(config).kubeconfig())? {
                Some(text) => in_memory(&text).context("cannot keep the kubeconfig in memory"),
                None => bail!("mini is not running; start it with `mini start`"),
            }
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The path of a file without a name, open as long as this process and those that inherit it live.
fn in_memory(text: &[u8]) -> io::Result<PathBuf> {
    // Not closed on exec: kubectl reads it.
    let descriptor = rustix::fs::memfd_create("kubeconfig", rustix::fs::MemfdFlags::empty())?;
    let mut file = File::from(descriptor);
    file.write_all(text)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::mem::forget(file);
    Ok(path)
}
