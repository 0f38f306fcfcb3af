//! The command line: one file per command.
//!
//! Knows the server only through its admin socket and, for `server` and `reset`, the composition root. Invariant: what
//! fails says why and what to do in one sentence on standard error, and the exit code is 1.

mod addon_server;
mod addons;
mod admin_client;
mod ci;
mod completion;
mod config;
mod dashboard;
mod images;
mod inspect;
mod invocation;
mod kubectl;
mod man;
mod output;
mod preflight;
mod reset;
mod server;
mod start;
mod status;
mod stop;
mod unit;
mod version;

use clap::{CommandFactory as _, Parser, Subcommand};
use invocation::Settings;
use std::ffi::OsString;
use std::process::ExitCode;

/// An embedded single-node Kubernetes distribution in one executable.
#[derive(Parser)]
#[command(name = "mini", version, max_term_width = 100, arg_required_else_help = true)]
struct Mini {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start in the background; running already is success
    Start(start::Start),
    /// Stop pods and all processes
    Stop(stop::Stop),
    /// Show whether the node runs, what each component waits for, and addons; exit code 1 when not ready
    Status(status::Status),
    /// Print the administrator's kubeconfig
    Config,
    /// Run kubectl as the administrator; all arguments are kubectl's
    #[command(disable_help_flag = true)]
    Kubectl,
    /// Enable addons and what they depend on; returns when they work
    Enable(addons::Enable),
    /// Disable addons: what enabling made is removed
    Disable(addons::Disable),
    /// List addons, or show what one takes
    Addons(addons::Addons),
    /// Make the dashboard reachable from this machine, or print a token to log in with
    Dashboard(dashboard::Dashboard),
    /// Bring images straight into the node, list or remove them
    Images(images::Images),
    /// Find what commonly goes wrong, and pack a report to send along
    Inspect(inspect::Inspect),
    /// Back to nothing: pods, networks, mounts, cgroups, changed sysctls and data
    Reset(reset::Reset),
    /// Run a command against a cluster of its own, which is gone when the command ends
    Ci(ci::Ci),
    /// Run in the foreground, as the unit and `start` do
    Server(server::Server),
    /// Show versions
    Version(version::Version),
    /// Print a shell's completion script
    Completion(completion::Completion),
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// Run an addon's server; its pods call this
    #[command(hide = true, subcommand)]
    AddonServer(addon_server::AddonServer),
}

/// Runs the command that `arguments` name; the first is the program.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let (ours, kubectls) = kubectl::split(arguments);
    let mini = match Mini::try_parse_from(ours) {
        Ok(mini) => mini,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(mini, kubectls) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mini: Mini, kubectls: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let settings = mini.settings;
    // These work without a configuration, even with a broken one.
    let command = match mini.command {
        Command::Completion(command) => return command.run(&mut Mini::command()),
        Command::Version(command) => return command.run(),
        Command::Man => return man::run(&mut Mini::command()),
        Command::AddonServer(server) => return server.run(),
        Command::Ci(command) => return command.run(&settings),
        command => command,
    };
    let config = match &command {
        Command::Server(server) => settings.with(&server.settings()).load()?,
        _ => settings.load()?,
    };
    match command {
        Command::Start(command) => command.run(&config, &settings),
        Command::Stop(command) => command.run(&config),
        Command::Status(command) => command.run(&config),
        Command::Config => config::run(&config),
        Command::Kubectl => kubectl::run(&config, kubectls),
        Command::Enable(command) => command.run(&config),
        Command::Disable(command) => command.run(&config),
        Command::Addons(command) => command.run(&config),
        Command::Dashboard(command) => command.run(&config),
        Command::Images(command) => command.run(&config),
        Command::Inspect(command) => command.run(&config),
        Command::Reset(command) => command.run(&config),
        Command::Server(command) => command.run(config),
        Command::Version(_) | Command::Completion(_) | Command::Man | Command::AddonServer(_) | Command::Ci(_) => {
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_complete_the_names_of_addons() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Mini::command(), "mini", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in ["enable", "disable"] {
            let begin = script.find(&format!("mini__subcmd__{command})\n")).unwrap();
            let words = script[begin..].lines().nth(1).unwrap();
            assert!(words.contains(" dns ") && words.contains("hostpath-storage"), "{command}: {words}");
        }
        // Others are taken all the same.
        assert!(Mini::try_parse_from(["mini", "enable", "dns:1.1.1.1", "mine"]).is_ok());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Mini::command().debug_assert();
    }

    #[test]
    fn settings_are_understood_before_and_after_the_command() {
        for line in ["mini --data-dir /a start -w", "mini start --data-dir /a -w"] {
            let mini = Mini::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(mini.settings.load().unwrap().data_dir, std::path::Path::new("/a"));
        }
    }
}
