//! The cluster's DNS server.

/// What its pod passes.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Serves until SIGTERM.
///
/// # Errors
/// The server cannot start.
pub fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
