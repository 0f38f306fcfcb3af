//! `mini ci -- COMMAND`: a cluster of its own for one command, gone when the command ends.

use crate::admin_client::{AdminClient, block_on};
use crate::invocation::Settings;
use crate::{images, preflight, start, stop};
use anyhow::{Context as _, bail};
use ipnet::Ipv4Net;
use mini_config::{Config, route_into};
use mini_sys::process::Process;
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::time::Duration;
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
    /// Serve this many made-up nodes, whose pods run in name only; those of Jobs succeed after a second
    #[arg(long, value_name = "N", requires = "api_only")]
    fake_nodes: Option<usize>,
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
        let networks = if self.api_only { None } else { Some(Networks::claim()?) };
        let node_ports = settings.load()?.node_port_range;
        let own = self.settings(directory.path(), &node_ports, networks.as_ref())?;
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
    fn settings(
        &self,
        directory: &Path,
        node_ports: &RangeInclusive<u16>,
        networks: Option<&Networks>,
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        let place = |name: &str| directory.join(name).display().to_string();
        let mut own = vec![("data-dir", place("data")), ("run-dir", place("run"))];
        let [api, kubelet] = free_ports(node_ports)?;
        own.extend([("api-port", api.to_string()), ("kubelet-port", kubelet.to_string())]);
        match networks {
            Some(networks) => own.extend(networks.settings()),
            None => own.extend(
                [("api-only", "true"), ("api-address", "127.0.0.1"), ("addons", "[]")]
                    .map(|(key, value)| (key, value.to_owned())),
            ),
        }
        own.extend(self.fake_nodes.map(|number| ("fake-nodes", number.to_string())));
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
        let runs = || {
            if !matches!(server.try_wait(), Ok(None)) {
                let why = preflight::last_failure(config);
                bail!("the cluster did not start: {}", why.as_deref().unwrap_or("its server ended at once"));
            }
            Ok(())
        };
        start::wait(&client, self.timeout, |status| status.ready, runs).await?;
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

/// Two ports that no Service will be given.
fn free_ports(node_ports: &RangeInclusive<u16>) -> anyhow::Result<[u16; 2]> {
    let mut held = Vec::new();
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").context("there is no free port")?;
        let port = listener.local_addr()?.port();
        held.push((listener, port));
        let fit: Vec<u16> = held.iter().map(|(_, port)| *port).filter(|port| !node_ports.contains(port)).collect();
        if let [first, second, ..] = fit.as_slice() {
            return Ok([*first, *second]);
        }
    }
}

/// Two networks, for pods and for Services, that are this instance's until it ends.
struct Networks {
    pods: Ipv4Net,
    services: Ipv4Net,
    /// Bound by a name that no other `mini ci` on this machine's network can bind meanwhile. Nothing listens there.
    _claim: UnixListener,
}

impl Networks {
    /// Those that this machine does not reach yet and no other instance of this kind has.
    fn claim() -> anyhow::Result<Self> {
        let routes = mini_sys::net::routes();
        (0..64)
            .find_map(|number| {
                let pods = Ipv4Net::new([10, 64 + number, 0, 0].into(), 16).ok()?;
                let services = Ipv4Net::new([10, 128 + number, 0, 0].into(), 24).ok()?;
                if [pods, services].into_iter().any(|net| route_into(net, &routes).is_some()) {
                    return None;
                }
                let name = SocketAddr::from_abstract_name(format!("mini-ci-{pods}")).ok()?;
                let claim = UnixListener::bind_addr(&name).ok()?;
                Some(Self { pods, services, _claim: claim })
            })
            .context("every network in 10.64.0.0/10 and 10.128.0.0/10 is taken on this machine")
    }

    fn settings(&self) -> [(&'static str, String); 3] {
        // The address by custom; the first is the API's.
        let dns = Ipv4Addr::from(u32::from(self.services.network()) + 10);
        [
            ("pod-cidr", self.pods.to_string()),
            ("service-cidr", self.services.to_string()),
            ("cluster-dns", dns.to_string()),
        ]
    }
}
