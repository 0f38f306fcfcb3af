//! `mini ci -- COMMAND`: a cluster of its own for one command, gone when the command ends.

use crate::admin_client::{AdminClient, block_on};
use crate::invocation::Settings;
use crate::{images, preflight, stop};
use anyhow::{Context as _, bail};
use mini_config::Config;
use mini_sys::process::Process;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the cluster may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// What its pods get between SIGTERM and SIGKILL: nobody will look at them again.
const GRACE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Ci {
    /// Only the API, its controllers and the scheduler: needs neither root nor containerd, and runs no container
    #[arg(long)]
    api_only: bool,
    /// An image archive to import first; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "api_only")]
    image: Vec<PathBuf>,
    /// Give up when the cluster is not ready after this many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// What to run; it finds the cluster through KUBECONFIG, and `mini` and `mini kubectl` speak to it too
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Ci {
    pub(crate) fn run(&self, settings: &Settings) -> anyhow::Result<ExitCode> {
        let directory = tempfile::Builder::new().prefix("mini-ci-").tempdir().context("cannot make a directory")?;
        let own = self.settings(directory.path())?;
        let settings = settings.with(&own);
        let config = settings.load()?;
        if !self.api_only {
            config.check_root()?;
        }
        preflight::prepare(&config)?;
        let outcome = block_on(self.serve_and_run(&config, &settings, &own));
        let left = if self.api_only { Vec::new() } else { mini_app::teardown::teardown(&config, GRACE) };
        for what in left {
            eprintln!("left behind: {what}");
        }
        let status = outcome?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }

    /// What sets this instance apart from every other on the machine.
    fn settings(&self, directory: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
        let place = |name: &str| directory.join(name).display().to_string();
        let mut own = vec![("data-dir", place("data")), ("run-dir", place("run"))];
        let [api, kubelet] = free_ports()?;
        own.extend([("api-port", api.to_string()), ("kubelet-port", kubelet.to_string())]);
        if self.api_only {
            own.extend(
                [("api-only", "true"), ("api-address", "127.0.0.1"), ("addons", "[]")]
                    .map(|(key, value)| (key, value.to_owned())),
            );
        } else {
            let (pods, services) = free_networks()?;
            own.extend([
                ("pod-cidr", format!("{pods}.0.0/16")),
                ("service-cidr", format!("{services}.0.0/24")),
                ("cluster-dns", format!("{services}.0.10")),
            ]);
        }
        Ok(own)
    }

    async fn serve_and_run(
        &self,
        config: &Config,
        settings: &Settings,
        own: &[(&'static str, String)],
    ) -> anyhow::Result<ExitStatus> {
        let mut signals = Signals::listen()?;
        let mut arguments = settings.arguments()?;
        arguments.extend(["server".into(), "--with-parent".into()]);
        let (mut server, _) =
            mini_sys::daemon::spawn(&arguments, &config.log_file()).context("cannot start the server")?;
        let started = tokio::select! {
            started = self.start(config, &mut server) => started.map(|()| None),
            signal = signals.next() => Ok(Some(ExitStatus::from_raw(signal))),
        };
        let outcome = match started {
            Ok(Some(interrupted)) => Ok(interrupted),
            Ok(None) => self.run_command(config, own, &mut signals).await,
            Err(error) => Err(error),
        };
        if let Err(error) = stop::ask(config, false, Some(PATIENCE)).await {
            eprintln!("{error:#}; going on without it");
            let _ = server.kill();
        }
        let _ = server.wait();
        outcome
    }

    /// Waits for the node, or without one for the API, and brings the images.
    async fn start(&self, config: &Config, server: &mut Child) -> anyhow::Result<()> {
        let client = AdminClient::new(config);
        let begun = Instant::now();
        while !client.status().await?.is_some_and(|status| status.ready) {
            if !matches!(server.try_wait(), Ok(None)) {
                let why = preflight::last_failure(config);
                bail!("the cluster did not start: {}", why.as_deref().unwrap_or("its server ended at once"));
            }
            if self.timeout > 0 && begun.elapsed() > Duration::from_secs(self.timeout) {
                bail!("the cluster is not ready after {} s", self.timeout);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for image in &self.image {
            images::import_one(&client, image).await?;
        }
        Ok(())
    }

    async fn run_command(
        &self,
        config: &Config,
        own: &[(&'static str, String)],
        signals: &mut Signals,
    ) -> anyhow::Result<ExitStatus> {
        let [program, arguments @ ..] = self.command.as_slice() else { bail!("there is no command") };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env("KUBECONFIG", config.admin_kubeconfig());
        for (key, value) in own {
            command.env(mini_config::variable(key), value);
        }
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        loop {
            let signal = tokio::select! {
                ended = child.wait() => return Ok(ended?),
                signal = signals.next() => signal,
            };
            // A terminal sends an interrupt to the command itself; it says when it has ended.
            if signal != SignalKind::interrupt().as_raw_value()
                && let Some(process) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Process::of)
            {
                process.signal(rustix::process::Signal::TERM);
            }
        }
    }
}

/// What would otherwise end this process and leave its cluster behind.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
        .as_raw_value()
    }
}

/// Two ports outside the default range of node ports.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let mut held = Vec::new();
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").context("there is no free port")?;
        let port = listener.local_addr()?.port();
        held.push((listener, port));
        let fit: Vec<u16> =
            held.iter().map(|(_, port)| *port).filter(|port| !(30_000..=32_767).contains(port)).collect();
        if let [first, second, ..] = fit.as_slice() {
            return Ok([*first, *second]);
        }
    }
}

/// The first halves of two networks that this machine does not reach yet: for pods and for Services.
fn free_networks() -> anyhow::Result<(String, String)> {
    let routes = mini_sys::net::routes();
    let taken = |net: &str| {
        let net: ipnet::Ipv4Net = format!("{net}.0.0/16").parse().unwrap_or_default();
        routes.iter().filter(|route| route.prefix > 0).any(|route| {
            ipnet::Ipv4Net::new(route.destination, route.prefix)
                .is_ok_and(|route| net.contains(&route.network()) || route.contains(&net.network()))
        })
    };
    // Two at once begin at different places.
    let start = std::process::id() % 64;
    (0..64)
        .map(|step| (start + step) % 64)
        .map(|number| (format!("10.{}", 64 + number), format!("10.{}", 128 + number)))
        .find(|(pods, services)| !taken(pods) && !taken(services))
        .context("every network in 10.64.0.0/10 and 10.128.0.0/10 is taken on this machine")
}
