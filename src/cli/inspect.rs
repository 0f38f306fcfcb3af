//! `mini inspect`: a report archive to send along, and a diagnosis of what commonly goes wrong.
//!
//! Works as well when mini does not run and when there is nothing of it on the machine. Invariant: it changes nothing but
//! the archive it writes, and no secret is in that.

mod checks;
mod collect;
mod objects;
mod scrub;

use crate::admin_client::{AdminClient, block_on};
use crate::{output, preflight};
use anyhow::Context as _;
use checks::Machine;
use collect::Report;
use mini_config::Config;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// Where the archive is written [default: this directory]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only print the diagnosis
    #[arg(long)]
    no_archive: bool,
}

impl Inspect {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let (status, addons) = block_on(async {
            let client = AdminClient::new(config);
            // Someone who may not ask is told so below.
            let status = client.status().await.ok().flatten();
            Ok((status, client.addons().await.ok()))
        })?;
        let machine = Machine::look(config, status, addons);
        let findings = checks::all(&machine);
        let mut text = String::new();
        for finding in &findings {
            text.push_str(&format!("{finding}\n"));
        }
        let problems = findings.iter().filter(|finding| finding.is_problem()).count();
        text.push_str(&match (problems, findings.len()) {
            (0, 0) => "nothing wrong was found\n".to_owned(),
            (0, _) => "nothing wrong was found, but see above\n".to_owned(),
            (1, _) => "1 problem was found\n".to_owned(),
            (problems, _) => format!("{problems} problems were found\n"),
        });
        output::print(&text)?;
        if self.no_archive {
            return Ok(ExitCode::SUCCESS);
        }
        let directory = match &self.output {
            Some(directory) => directory.clone(),
            None => std::env::current_dir().context("cannot find the working directory")?,
        };
        let mut report = Report::new(&directory)?;
        report.text("diagnosis.txt", &text);
        collect::machine(&mut report);
        collect::instance(&mut report, config, &machine, preflight::last_failure(config));
        if machine.status.is_some() {
            block_on(objects::collect(&mut report, config))?;
        }
        let archive = report.finish()?;
        output::print(format!("report: {}\n", archive.display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
