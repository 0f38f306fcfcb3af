//! `mini server`: the foreground process.

use crate::preflight;
use anyhow::{Context as _, bail};
use mini_config::Config;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::process::ExitCode;

/// A log that a daemon writes is put aside at a start when it is longer than this.
const LONG_LOG: u64 = 8 << 20;

#[derive(clap::Args)]
pub(crate) struct Server {
    /// End when the process that started it ends, however it does
    #[arg(long, hide = true)]
    with_parent: bool,
    /// Serve this many made-up nodes and none else: needs neither root nor containerd, and pods run in name only
    #[arg(long, value_name = "N")]
    fake_nodes: Option<usize>,
}

impl Server {
    /// The settings that its flags stand for.
    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        let Some(number) = self.fake_nodes else { return Vec::new() };
        vec![("fake-nodes", number.to_string()), ("api-only", "true".to_owned()), ("addons", "[]".to_owned())]
    }

    pub(crate) fn run(&self, config: Config) -> anyhow::Result<ExitCode> {
        if self.with_parent {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
                .context("cannot follow the process that started this one")?;
        }
        run(config)
    }
}

fn run(config: Config) -> anyhow::Result<ExitCode> {
    mini_telemetry::logs::init(&config.log_level).map_err(anyhow::Error::msg)?;
    let at_failure = config.clone();
    match serve(config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let why = format!("{error:#}");
            tracing::error!("{why}");
            preflight::note_failure(&at_failure, &why);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    config.check_root()?;
    std::fs::create_dir_all(&config.run_dir).with_context(|| format!("cannot make {}", config.run_dir.display()))?;
    let _only_one = lock(&config)?;
    preflight::forget_failure(&config);
    preflight::prepare(&config)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data = %config.data_dir.display(), "mini starts");
    mini_app::run(config)
}

/// The pid file, locked as long as this process lives.
fn lock(config: &Config) -> anyhow::Result<File> {
    let path = config.pid_file();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            bail!("mini is running already, as process {}", pid.split_whitespace().next().unwrap_or("unknown"));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let this = mini_sys::process::Process::current();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{} {}", this.pid, this.start_time)?;
    Ok(file)
}

/// Keeps the log of a daemon from growing for ever: one older one is kept.
pub(crate) fn rotate_log(config: &Config) {
    let log = config.log_file();
    if log.metadata().is_ok_and(|log| log.len() > LONG_LOG) {
        let _ = std::fs::rename(&log, log.with_extension("log.1"));
    }
}

/// The process that runs the server of this instance, be it well or not.
pub(crate) fn process(config: &Config) -> Option<mini_sys::process::Process> {
    let text = std::fs::read_to_string(config.pid_file()).ok()?;
    let (pid, start_time) = text.trim().split_once(' ')?;
    let process = mini_sys::process::Process { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? };
    process.is_alive().then_some(process)
}
