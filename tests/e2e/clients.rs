//! Clients that others wrote, each against an API of its own.

use crate::cluster::{Cluster, text};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program of `tests/clients` in `mini ci --api-only`; what it printed.
fn run(program: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::Builder::new().prefix("mini-e2e-client-").tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mini"));
    command.args(["ci", "--api-only", "--"]).arg(root.join("tests/clients").join(program));
    command.env("TMPDIR", directory.path()).env("PYTHONPATH", root.join("target/tools/python")).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} (its tools come from `scripts/setup.sh test`): {}", text(&output));
    println!("{}", text(&output).trim());
    text(&output)
}

pub(crate) fn python(_: &Cluster, _: &str) {
    assert!(run("python.py").contains("leader_election:"));
}

pub(crate) fn kubectl(_: &Cluster, _: &str) {
    assert_eq!(run("kubectl").matches(": ok").count(), 2);
}

pub(crate) fn helm(_: &Cluster, _: &str) {
    assert!(run("helm").contains("three-way patches: ok"));
}
