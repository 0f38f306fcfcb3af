//! `mini version`.

use crate::output;
use crate::status::{pretty_json, yaml};
use serde_json::json;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Version {
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Pretty,
    Short,
    Yaml,
    Json,
}

impl Version {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let (mini, kubernetes) = (env!("CARGO_PKG_VERSION"), mini_api::KUBERNETES_VERSION);
        let value = json!({"mini": mini, "kubernetes": kubernetes});
        output::print(match self.format {
            Format::Pretty => format!("mini {mini} (Kubernetes {kubernetes})\n"),
            Format::Short => format!("{mini}\n"),
            Format::Yaml => yaml(&value)?,
            Format::Json => pretty_json(&value)?,
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
