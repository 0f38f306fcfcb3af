//! `mini stop`: pods and all processes end, in order.

use crate::admin_client::{self, AdminClient, block_on};
use crate::{server, unit};
use anyhow::bail;
use http::Method;
use mini_config::Config;
use mini_config::admin::{self, Reply};
use mini_sys::process::Process;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What pods get between SIGTERM and SIGKILL when no kubelet is there to ask.
const GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Stop {
    /// Leave pods running; the next start takes them over
    #[arg(long)]
    keep_pods: bool,
    /// Give up after this many seconds; 0 is never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

impl Stop {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let limit = (self.timeout > 0).then(|| Duration::from_secs(self.timeout));
        let was_running = block_on(ask(config, self.keep_pods, limit))?;
        // Whoever may speak to the server may stop it; the rest is root's.
        if !mini_sys::is_root() && !config.api_only {
            println!("{}", if was_running { "mini has stopped" } else { "mini is not running" });
            return Ok(ExitCode::SUCCESS);
        }
        unit::stop(config);
        // A server that was killed leaves its pods behind.
        let left = if self.keep_pods { Vec::new() } else { mini_app::teardown::end_processes(config, GRACE) };
        match (was_running, left.len()) {
            (true, _) => println!("mini has stopped"),
            (false, 0) => println!("mini is not running"),
            (false, left) => println!("mini was not running; ended {left} processes it had left behind"),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks a running server to stop and waits until its process has ended. False when none runs.
pub(crate) async fn ask(config: &Config, keep_pods: bool, limit: Option<Duration>) -> anyhow::Result<bool> {
    let client = AdminClient::new(config);
    let Some(status) = client.status().await? else {
        // Without a socket it cannot be asked, but it must end all the same.
        return Ok(server::process(config).is_some_and(|process| process.end(Duration::from_secs(10))));
    };
    let process = server::process(config).or_else(|| Process::of(status.pid));
    let _: Reply = client.call(Method::POST, "/stop", admin_client::json(&admin::Stop { keep_pods })?).await?;
    let begun = Instant::now();
    while process.as_ref().is_some_and(Process::is_alive) || client.status().await.ok().flatten().is_some() {
        if limit.is_some_and(|limit| begun.elapsed() > limit) {
            bail!("mini is still stopping after {} s; its log says what it waits for", begun.elapsed().as_secs());
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    Ok(true)
}
