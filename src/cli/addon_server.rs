//! `mini addon-server NAME`: what addon pods run.

use mini_addons::{dashboard, dns, ingress};
use std::process::ExitCode;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AddonServer {
    /// The cluster's DNS server
    Dns(dns::Args),
    /// The ingress controller
    Ingress(ingress::Args),
    /// The dashboard
    Dashboard(dashboard::Args),
}

impl AddonServer {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        mini_telemetry::logs::init("warn").map_err(anyhow::Error::msg)?;
        match self {
            Self::Dns(args) => dns::run(args),
            Self::Ingress(args) => ingress::run(args),
            Self::Dashboard(args) => dashboard::run(args),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
