//! `mini status`: running or not and why not; each component and what it waits for; addons.

use crate::admin_client::{AdminClient, block_on};
use crate::{addons, output, preflight};
use mini_config::Config;
use mini_config::admin::{self, Addon, Component, State};
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Status {
    /// Wait until the node is ready
    #[arg(short, long)]
    wait_ready: bool,
    /// With --wait-ready, give up after this many seconds; 0 is never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    #[arg(long, value_enum, default_value_t = Format::Pretty)]
    format: Format,
    /// Print only whether this addon is enabled or disabled
    #[arg(short, long, value_name = "NAME", value_parser = addons::Name, hide_possible_values = true)]
    addon: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Pretty,
    Short,
    Yaml,
    Json,
}

impl Status {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let client = AdminClient::new(config);
        let status = block_on(self.ask(&client))?;
        // Those of a server whose API is not up yet are unknown.
        let known = match &status {
            Some(_) => block_on(client.addons()).ok(),
            None => None,
        };
        let known = known.map(|known| known.addons);
        let text = match (&status, &self.addon) {
            (Some(_), Some(name)) => addons::word(known.as_deref().unwrap_or_default(), name).to_owned() + "\n",
            (Some(status), None) => running(status, known.as_deref(), self.format)?,
            (None, _) => not_running(preflight::last_failure(config), self.format)?,
        };
        output::print(text)?;
        Ok(if status.is_some_and(|status| status.ready) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn ask(&self, client: &AdminClient) -> anyhow::Result<Option<admin::Status>> {
        let begun = Instant::now();
        loop {
            let status = client.status().await?;
            let late = self.timeout > 0 && begun.elapsed() > Duration::from_secs(self.timeout);
            if !self.wait_ready || late || status.as_ref().is_some_and(|status| status.ready) {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn running(status: &admin::Status, addons: Option<&[Addon]>, format: Format) -> anyhow::Result<String> {
    let headline = if status.ready { "mini is running" } else { "mini is running, but not ready" };
    Ok(match format {
        Format::Pretty => {
            let width = status.components.iter().map(|part| part.name.len()).max().unwrap_or_default();
            let mut text = format!("{headline}\n");
            let _ = writeln!(text, "node: {} ({})", status.node, status.node_ip);
            let _ = writeln!(text, "api: {}", status.api);
            let _ = writeln!(text, "version: {} (Kubernetes {})", status.version, status.kubernetes);
            let _ = writeln!(text, "high-availability: no\n  datastore: sqlite on this node\ncomponents:");
            for part in &status.components {
                let _ = writeln!(text, "  {:width$}  {}", part.name, state(part));
            }
            text + &addons.map(addons::pretty).unwrap_or_default()
        }
        Format::Short => {
            let lines = status.components.iter().map(|part| format!("{}: {}\n", part.name, state(part)));
            let addons = addons.map(addons::short).unwrap_or_default();
            format!("{headline}\ncomponents:\n{}{addons}", lines.collect::<String>())
        }
        Format::Yaml => yaml(&machine_readable(status, addons))?,
        Format::Json => pretty_json(&machine_readable(status, addons))?,
    })
}

fn not_running(why: Option<String>, format: Format) -> anyhow::Result<String> {
    let message = match why {
        Some(why) => format!("mini is not running: {why}"),
        None => "mini is not running; start it with `mini start`".to_owned(),
    };
    let value = json!({"mini": {"running": false, "ready": false}, "message": message});
    Ok(match format {
        Format::Pretty | Format::Short => format!("{message}\n"),
        Format::Yaml => yaml(&value)?,
        Format::Json => pretty_json(&value)?,
    })
}

fn machine_readable(status: &admin::Status, addons: Option<&[Addon]>) -> Value {
    let mut value = json!({
        "mini": {"running": status.running, "ready": status.ready, "pid": status.pid, "version": status.version, "kubernetes": status.kubernetes},
        "node": {"name": status.node, "address": status.node_ip},
        "api": status.api,
        "high-availability": {"enabled": false, "datastore": "sqlite"},
        "components": status.components,
    });
    if let Some(addons) = addons {
        value["addons"] = addons::machine_readable(addons);
    }
    value
}

pub(crate) fn yaml(value: &Value) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(value)?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

pub(crate) fn pretty_json(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// `kubelet: waiting for containerd`
pub(crate) fn line(part: &Component) -> String {
    format!("{}: {}", part.name, state(part))
}

fn state(part: &Component) -> String {
    match part.state {
        State::Ready => "ready".to_owned(),
        State::Waiting => format!("waiting {}", part.message),
        State::Failed => format!("failed: {}", part.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addons::tests::two;

    fn status() -> admin::Status {
        let part = |name: &str, state, message: &str| Component { name: name.into(), state, message: message.into() };
        admin::Status {
            running: true,
            version: "0.1.0".into(),
            kubernetes: "v1.37.0".into(),
            node: "n".into(),
            node_ip: "192.0.2.1".into(),
            api: "https://127.0.0.1:16443".into(),
            components: vec![
                part("apiserver", State::Ready, ""),
                part("kubelet", State::Waiting, "for containerd to answer on its socket"),
            ],
            ..admin::Status::default()
        }
    }

    #[test]
    fn pretty_says_what_is_waited_for() {
        assert_eq!(
            running(&status(), None, Format::Pretty).unwrap(),
            "mini is running, but not ready\nnode: n (192.0.2.1)\napi: https://127.0.0.1:16443\n\
             version: 0.1.0 (Kubernetes v1.37.0)\nhigh-availability: no\n  datastore: sqlite on this node\ncomponents:\n  \
             apiserver  ready\n  kubelet    waiting for containerd to answer on its socket\n"
        );
    }

    #[test]
    fn the_other_formats_say_the_same() {
        let short = running(&status(), Some(&two()), Format::Short).unwrap();
        assert!(short.contains("\nkubelet: waiting for containerd"), "{short}");
        assert!(short.ends_with("\naddons:\ncommunity/argocd: disabled\ncore/dns: enabled\n"), "{short}");
        let yaml = running(&status(), Some(&two()), Format::Yaml).unwrap();
        assert!(yaml.contains("mini:\n") && yaml.contains("running: true"), "{yaml}");
        let json: Value = serde_json::from_str(&running(&status(), Some(&two()), Format::Json).unwrap()).unwrap();
        assert_eq!(json["components"][1]["state"], "waiting");
        assert_eq!(json["addons"][1]["status"], "enabled");
        let json: Value = serde_json::from_str(&not_running(Some("no disk".into()), Format::Json).unwrap()).unwrap();
        assert_eq!(json["message"], "mini is not running: no disk");
    }
}
