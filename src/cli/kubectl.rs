//! `mini kubectl`: kubectl with the right kubeconfig.

use anyhow::{Context as _, bail};
use mini_config::Config;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Everything behind `kubectl` is kubectl's own, even what looks like a flag of ours.
pub(crate) fn split(mut arguments: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        if argument == "kubectl" {
            let rest = arguments.split_off(at + 1);
            return (arguments, rest);
        }
        if !argument.starts_with("--") {
            break;
        }
        at += if argument.contains('=') { 1 } else { 2 };
    }
    (arguments, Vec::new())
}

pub(crate) fn run(config: &Config, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let Some(program) = program(config) else {
        bail!("there is no kubectl on this machine; install it, or name it with `kubectl` in the configuration");
    };
    let mut command = Command::new(&program);
    command.args(arguments);
    if !is_client_only(&command) {
        command.env("KUBECONFIG", crate::config::kubeconfig(config)?);
    }
    Err(command.exec()).with_context(|| format!("cannot run {}", program.display()))
}

/// `version --client`, `completion` and the like need no cluster.
fn is_client_only(command: &Command) -> bool {
    let first = command.get_args().next().and_then(|argument| argument.to_str());
    matches!(first, None | Some("completion" | "help" | "--help" | "-h" | "options" | "kustomize"))
        || command.get_args().any(|argument| argument == "--client" || argument == "--client=true")
}

fn program(config: &Config) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KUBECTL") {
        return Some(PathBuf::from(named));
    }
    if let Some(named) = &config.kubectl {
        return Some(named.clone());
    }
    let bundled = config.data_dir.join("bin/kubectl");
    if bundled.exists() {
        return Some(bundled);
    }
    mini_config::find_program(Path::new("kubectl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectls_arguments_stay_kubectls() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let (ours, rest) = split(words("mini --data-dir /kubectl --set=a=b kubectl get --config x kubectl"));
        assert_eq!(ours, words("mini --data-dir /kubectl --set=a=b kubectl"));
        assert_eq!(rest, words("get --config x kubectl"));
        assert_eq!(split(words("mini images import kubectl")).1, Vec::<OsString>::new());
    }
}
