//! The CNI plugin: containerd runs this executable with `CNI_COMMAND` in its environment and a configuration on its
//! standard input, and waits for it, so it does little: a lease, one pair of interfaces, two routes.
//!
//! Knows nothing of Kubernetes. Invariant: DEL succeeds however much of an ADD is there, and as often as it is called.

mod add;
mod protocol;

use protocol::{Call, Command, Failure};
use std::process::ExitCode;

/// Whether a container runtime started this process as its plugin.
#[must_use]
pub fn is_plugin_call() -> bool {
    std::env::args_os().len() <= 1 && std::env::var_os("CNI_COMMAND").is_some()
}

/// Serves the one call this process was started for.
#[must_use]
pub fn main() -> ExitCode {
    let call = match Call::read() {
        Ok(call) => call,
        Err(failure) => return failure.report(protocol::NEWEST),
    };
    match answer(&call) {
        Ok(Some(result)) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&call.config.cni_version),
    }
}

fn answer(call: &Call) -> Result<Option<serde_json::Value>, Failure> {
    if call.command == Command::Version {
        return Ok(Some(protocol::versions(&call.config.cni_version)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Failure::io)?;
    let loopback = call.config.type_ == "loopback";
    match call.command {
        Command::Add if loopback => add::loopback(call).map(Some),
        Command::Add => runtime.block_on(add::add(call)).map(Some),
        Command::Check if !loopback => add::check(call).map(|()| None),
        Command::Del if !loopback => runtime.block_on(add::del(call)).map(|()| None),
        _ => Ok(None),
    }
}
