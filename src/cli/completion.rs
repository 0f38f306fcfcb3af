//! `mini completion`: scripts for shells, from the same definitions as the commands.

use crate::output;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Completion {
    shell: clap_complete::Shell,
}

impl Completion {
    pub(crate) fn run(&self, command: &mut clap::Command) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, command, "mini", &mut script);
        output::print(script)?;
        Ok(ExitCode::SUCCESS)
    }
}
