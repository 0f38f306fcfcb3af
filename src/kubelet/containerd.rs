//! The private containerd: found, configured, started, adopted, supervised, stopped.
//!
//! Owns `<data>/containerd` (images, configuration, log) and `<run>/containerd` (sockets, state, process file). A
//! containerd of the system or of docker is never touched. Invariant: containers and containerd outlive `mini`; the next
//! start finds both by the process file and takes them over.

mod config_toml;
mod process;

pub use config_toml::cgroup_driver_is_systemd;
pub(crate) use config_toml::snapshotter;

use crate::runtime::Runtime;
use process::Process;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// How long a fresh containerd may take to answer.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// A restart after a crash waits this long at first, and at most [`BACK_OFF_MAX`].
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// Where containerd lives and what it is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The executable; `None` looks in `PATH`, `/usr/bin`, `/usr/local/bin`.
    pub binary: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub sandbox_image: String,
    pub cni_bin_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
}

impl Config {
    /// Images, snapshots, configuration and log.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.data_dir.join("containerd")
    }

    /// Sockets, state and the process file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.run_dir.join("containerd")
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// `hosts.toml` folders, one for each registry.
    #[must_use]
    pub fn certs_dir(&self) -> PathBuf {
        self.data_dir.join("certs.d")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "containerd is not installed: install the package containerd (Debian, Ubuntu) or containerd.io, or set its path in the configuration"
    )]
    Missing,
    #[error("there is no containerd at {0}: correct its path in the configuration")]
    NotAt(PathBuf),
    #[error("cannot prepare containerd's directory {0}: {1}")]
    Directory(PathBuf, #[source] io::Error),
    #[error("cannot start {0}: {1}")]
    Spawn(PathBuf, #[source] io::Error),
    #[error("containerd ended before it answered; its last words: {0}")]
    Died(String),
    #[error("containerd did not answer on {socket} within {seconds} s; its log is {log}")]
    Silent { socket: PathBuf, seconds: u64, log: PathBuf },
    #[error("cannot look after containerd: {0}")]
    Supervise(#[source] io::Error),
}

/// A running private containerd. Clones share it.
#[derive(Clone)]
pub struct Containerd {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    binary: PathBuf,
    process: Mutex<Option<Process>>,
    runtime: Runtime,
    /// False while containerd is down.
    up: watch::Sender<bool>,
    stopping: CancellationToken,
}

impl Containerd {
    /// Takes over the containerd of an earlier run if it is ours, alive and configured the same; else starts one. Returns
    /// once its CRI service answers. It is restarted when it ends, until `cancel` (which leaves it running) or [`Self::stop`].
    ///
    /// # Errors
    /// Each [`Error`] says what to do.
    pub async fn spawn(config: Config, cancel: CancellationToken) -> Result<Self, Error> {
        let binary = find(config.binary.as_deref())?;
        for dir in [config.home(), config.state(), config.certs_dir(), config.cni_conf_dir.clone()] {
            std::fs::create_dir_all(&dir).map_err(|e| Error::Directory(dir, e))?;
        }
        let path = config.home().join("config.toml");
        let text = config_toml::render(&config);
        let unchanged = std::fs::read_to_string(&path).is_ok_and(|old| old == text);
        if !unchanged {
            std::fs::write(&path, &text).map_err(|e| Error::Directory(path, e))?;
        }
        let runtime = Runtime::connect(&config.socket());
        let mut process = Process::read(&config.state().join("process"));
        if let Some(old) = &process
            && !unchanged
        {
            // Containers do not notice: each has its own shim.
            tracing::info!(pid = old.pid(), "containerd's configuration changed; restarting it");
            old.stop(STOP_DEADLINE).await;
            process = None;
        }
        let shared = Arc::new(Shared {
            config,
            binary,
            process: Mutex::new(None),
            runtime,
            up: watch::Sender::new(false),
            stopping: cancel,
        });
        let process = match process {
            Some(adopted) => {
                tracing::info!(pid = adopted.pid(), "adopted the running containerd");
                adopted
            }
            None => shared.start()?,
        };
        shared.await_ready(&process).await?;
        *shared.process.lock().await = Some(process);
        shared.up.send_replace(true);
        tokio::spawn(Arc::clone(&shared).supervise());
        Ok(Self { shared })
    }

    /// The gRPC doors of this containerd.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.shared.runtime.clone()
    }

    /// Whether it runs; changes as it falls and rises.
    #[must_use]
    pub fn up(&self) -> watch::Receiver<bool> {
        self.shared.up.subscribe()
    }

    /// Ends containerd (not its containers) and its supervision.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        if let Some(process) = self.shared.process.lock().await.take() {
            process.stop(STOP_DEADLINE).await;
        }
        let _ = std::fs::remove_file(self.shared.config.state().join("process"));
        self.shared.up.send_replace(false);
    }
}

impl Shared {
    fn start(&self) -> Result<Process, Error> {
        let log_path = self.config.home().join("containerd.log");
        let failed = |e| Error::Spawn(self.binary.clone(), e);
        // One earlier log is kept; a crash loop must not fill the disk.
        if std::fs::metadata(&log_path).is_ok_and(|m| m.len() > 4 << 20) {
            let _ = std::fs::rename(&log_path, log_path.with_extension("log.1"));
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).map_err(failed)?;
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.config.home().join("config.toml"))
            .env("PATH", search_path())
            .env("TMPDIR", self.config.home())
            .env_remove("NOTIFY_SOCKET")
            .env_remove(mini_sys::daemon::ALLOCATOR.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .current_dir("/")
            // A signal to our terminal's group must not reach it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let process = Process::of_child(child).map_err(failed)?;
        process.write(&self.config.state().join("process")).map_err(failed)?;
        Ok(process)
    }

    async fn await_ready(&self, process: &Process) -> Result<(), Error> {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(2);
        loop {
            if self.config.socket().exists() && self.runtime.version().await.is_ok() {
                return Ok(());
            }
            if !process.is_alive() {
                return Err(Error::Died(last_line(&self.config.home().join("containerd.log"))));
            }
            if begun.elapsed() > START_DEADLINE {
                return Err(Error::Silent {
                    socket: self.config.socket(),
                    seconds: START_DEADLINE.as_secs(),
                    log: self.config.home().join("containerd.log"),
                });
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(20));
        }
    }

    async fn supervise(self: Arc<Self>) {
        let mut back_off = BACK_OFF;
        loop {
            let ended = match self.process.lock().await.as_ref() {
                Some(process) => process.ended(),
                None => return,
            };
            let begun = Instant::now();
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = ended => {}
            }
            if self.stopping.is_cancelled() {
                return;
            }
            self.up.send_replace(false);
            if begun.elapsed() > Duration::from_secs(60) {
                back_off = BACK_OFF;
            }
            tracing::warn!(?back_off, "containerd ended; starting it again");
            loop {
                tokio::select! {
                    () = self.stopping.cancelled() => return,
                    () = tokio::time::sleep(back_off) => {}
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                let mut slot = self.process.lock().await;
                match self.start() {
                    Ok(process) => {
                        let answer = self.await_ready(&process).await;
                        if let Err(error) = answer {
                            tracing::warn!(%error, "containerd does not come back");
                            // One that lives and is silent would stand in the way of the next.
                            process.stop(STOP_DEADLINE).await;
                        } else {
                            *slot = Some(process);
                            break;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "containerd does not come back"),
                }
            }
            self.up.send_replace(true);
        }
    }
}

fn find(configured: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = configured {
        return if path.is_file() { Ok(path.to_owned()) } else { Err(Error::NotAt(path.to_owned())) };
    }
    std::env::split_paths(&search_path()).map(|dir| dir.join("containerd")).find(|p| p.is_file()).ok_or(Error::Missing)
}

/// `PATH` with the usual places added: runc is often in `sbin`, which is not on every `PATH`.
fn search_path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&own).filter(|d| d.is_absolute()).collect();
    for dir in usual.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).unwrap_or(own)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("(none)").to_owned()
}
