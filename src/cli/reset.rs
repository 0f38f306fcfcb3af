//! `mini reset`: back to nothing, whether the server still works or not.

use crate::admin_client::block_on;
use crate::{server, stop, unit};
use anyhow::bail;
use mini_config::Config;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How long a working server may take to end; then it is ended without asking.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long pods get between SIGTERM and SIGKILL: nothing they could still write down will be left.
const GRACE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(crate) struct Reset {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Reset {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        config.check_root()?;
        mini_app::teardown::check(config)?;
        if !self.yes && !confirmed(config)? {
            println!("nothing was changed");
            return Ok(ExitCode::FAILURE);
        }
        if let Err(error) = block_on(stop::ask(config, true, Some(PATIENCE))) {
            eprintln!("{error:#}; going on without it");
        }
        unit::stop(config);
        if let Some(process) = server::process(config)
            && !process.end(Duration::from_secs(2))
        {
            bail!("process {} does not end; reset cannot go on", process.pid);
        }
        let left = mini_app::teardown::teardown(config, GRACE);
        if left.is_empty() {
            println!("mini is reset; nothing of it is left on this machine but the program and its configuration file");
            return Ok(ExitCode::SUCCESS);
        }
        bail!("reset did what it could, but: {}", left.join("; "));
    }
}

fn confirmed(config: &Config) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("reset deletes the cluster in {} for good; say so with --yes", config.data_dir.display());
    }
    print!("This deletes all pods and data of the cluster in {} for good. Go on? [y/N] ", config.data_dir.display());
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
