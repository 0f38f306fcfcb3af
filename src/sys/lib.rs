//! What the machine tells and does: processes, ports, mounts, routes, capabilities.
//!
//! Knows nothing of Kubernetes. Invariant: looking never changes anything, and what is ended or unmounted was named by the
//! caller, by id or path.

pub mod cgroups;
pub mod changes;
pub mod daemon;
pub mod listeners;
pub mod mounts;
pub mod net;
pub mod pause;
pub mod process;
pub mod systemd;
pub mod usage;

pub use pause::pause;

/// Is this the root user (of its user namespace)?
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The machine's name as the kernel has it.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
