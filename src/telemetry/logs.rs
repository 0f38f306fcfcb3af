//! Log set-up: one line per event on standard error.
//!
//! The journal has time and unit already, so they are left out there.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Modules of others that say too much at `info`.
const QUIET: [&str; 4] = ["hyper=warn", "rustls=warn", "h2=warn", "tower=warn"];

/// Sends the program's events to standard error. `level` is `info` or the like, or an `EnvFilter`.
///
/// # Errors
/// When `level` cannot be understood or logs are set up already.
pub fn init(level: &str) -> Result<(), String> {
    let filter =
        QUIET.iter().try_fold(EnvFilter::try_new(level).map_err(|error| error.to_string())?, |filter, quiet| {
            // What the user asks of a module goes before.
            if level.contains(quiet.split('=').next().unwrap_or_default()) {
                return Ok(filter);
            }
            quiet
                .parse()
                .map(|directive| filter.add_directive(directive))
                .map_err(|_| format!("{quiet} is no directive"))
        })?;
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let result =
        if std::env::var_os("JOURNAL_STREAM").is_some() { logs.without_time().try_init() } else { logs.try_init() };
    result.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(target: "panic", "{panic}\n{}", std::backtrace::Backtrace::capture());
    }));
    Ok(())
}
