//! `mini start`: the server in the background, through systemd where its unit is installed, else as a daemon.

use crate::admin_client::{AdminClient, block_on};
use crate::invocation::Settings;
use crate::{preflight, server, status, unit};
use anyhow::{Context as _, bail};
use mini_config::Config;
use mini_config::admin::{State, Status};
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Start {
    /// Wait until the node is ready, not only until the API answers
    #[arg(short, long)]
    wait_ready: bool,
    /// Give up after this many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// What was started, to see when it ends.
enum Started {
    Daemon(Child),
    Unit,
    /// By someone else.
    Before,
}

impl Start {
    pub(crate) fn run(&self, config: &Config, settings: &Settings) -> anyhow::Result<ExitCode> {
        config.check_root()?;
        let running = block_on(AdminClient::new(config).status())?.is_some() || server::process(config).is_some();
        let started = if running { Started::Before } else { launch(config, settings)? };
        let started = block_on(self.wait(config, settings, started))?;
        let how = if self.wait_ready { "ready" } else { "running" };
        println!("mini is {how}{}", if matches!(started, Started::Before) { " already" } else { "" });
        Ok(ExitCode::SUCCESS)
    }

    async fn wait(&self, config: &Config, settings: &Settings, mut started: Started) -> anyhow::Result<Started> {
        let goes_on = || {
            if has_ended(config, &mut started) {
                // What ran before was at its end, be it killed or told to stop: this start's server is still to come.
                match started {
                    Started::Before => started = launch(config, settings)?,
                    _ => bail!("{}", why_ended(config, &started)),
                }
            }
            Ok(())
        };
        wait(&AdminClient::new(config), self.timeout, |status| self.is_satisfied(status), goes_on).await?;
        Ok(started)
    }

    fn is_satisfied(&self, status: &Status) -> bool {
        if self.wait_ready {
            return status.ready;
        }
        let api = status.components.iter().find(|component| component.name == "apiserver");
        api.is_some_and(|component| component.state == State::Ready)
    }
}

/// Waits for a status that is `enough`, at most `seconds`, where 0 is for ever. `goes_on` says why it never will be.
pub(crate) async fn wait(
    client: &AdminClient,
    seconds: u64,
    enough: impl Fn(&Status) -> bool,
    mut goes_on: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let now = client.status().await?;
        if now.as_ref().is_some_and(&enough) {
            return Ok(());
        }
        goes_on()?;
        if seconds > 0 && begun.elapsed() > Duration::from_secs(seconds) {
            bail!("{}", too_late(seconds, now.as_ref()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn launch(config: &Config, settings: &Settings) -> anyhow::Result<Started> {
    preflight::forget_failure(config);
    preflight::prepare(config)?;
    if unit::is_installed() && settings.is_empty() {
        unit::start()?;
        return Ok(Started::Unit);
    }
    server::rotate_log(config);
    let mut arguments = settings.arguments()?;
    arguments.push("server".into());
    let (child, _) = mini_sys::daemon::spawn(&arguments, &config.log_file()).context("cannot start the server")?;
    Ok(Started::Daemon(child))
}

fn has_ended(config: &Config, started: &mut Started) -> bool {
    match started {
        Started::Daemon(child) => matches!(child.try_wait(), Ok(Some(_)) | Err(_)),
        // systemd may still be about to start it; a failure leaves its note.
        Started::Unit => server::process(config).is_none() && preflight::last_failure(config).is_some(),
        Started::Before => server::process(config).is_none(),
    }
}

fn why_ended(config: &Config, started: &Started) -> String {
    preflight::last_failure(config).unwrap_or_else(|| {
        let log = match started {
            Started::Unit => "`journalctl -u mini`".to_owned(),
            _ => config.log_file().display().to_string(),
        };
        format!("the server ended at once; {log} says why")
    })
}

fn too_late(seconds: u64, status: Option<&Status>) -> String {
    let Some(found) = status else { return format!("the server does not answer after {seconds} s") };
    let waiting: Vec<String> =
        found.components.iter().filter(|part| part.state != State::Ready).map(status::line).collect();
    format!("not ready after {seconds} s: {}", waiting.join("; "))
}
