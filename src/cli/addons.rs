//! `mini enable`, `mini disable` and `mini addons`.

use crate::admin_client::{self, AdminClient, block_on};
use crate::output;
use crate::status::{pretty_json, yaml};
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use http::Method;
use mini_config::Config;
use mini_config::admin::{self, Addon, Outcome, Step};
use serde::Serialize;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fmt::Write;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Enable {
    /// Addons, with arguments such as dns:1.1.1.1 or dns:forwarders=1.1.1.1
    #[arg(required = true, value_name = "NAME[:ARGUMENTS]", value_parser = Name, hide_possible_values = true)]
    addons: Vec<String>,
    /// Give up waiting for each to work after this many seconds; 0 is never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

#[derive(clap::Args)]
pub(crate) struct Disable {
    #[arg(required = true, value_name = "NAME", value_parser = Name, hide_possible_values = true)]
    addons: Vec<String>,
}

/// Takes any text, for there may be others of one's own; shells complete the core addons' names.
#[derive(Clone)]
pub(crate) struct Name;

impl TypedValueParser for Name {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(mini_addons::engine::core_names().map(PossibleValue::new)))
    }
}

#[derive(clap::Args)]
pub(crate) struct Addons {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// List all addons
    #[command(visible_alias = "ls")]
    List {
        #[arg(long, value_enum, default_value_t = Format::Pretty)]
        format: Format,
    },
    /// Show what an addon takes and depends on
    Show {
        #[arg(value_parser = Name, hide_possible_values = true)]
        name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Pretty,
    Yaml,
    Json,
}

impl Enable {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let asked = admin::Enable { addons: self.addons.clone(), timeout: self.timeout };
        follow(config, "/addons/enable", &asked)
    }
}

impl Disable {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        follow(config, "/addons/disable", &admin::Disable { addons: self.addons.clone() })
    }
}

/// Shows the steps as they come. The server goes on with them when this command is interrupted.
fn follow(config: &Config, path: &str, asked: &impl Serialize) -> anyhow::Result<ExitCode> {
    let body = admin_client::json(asked)?;
    block_on(async {
        let mut failed = false;
        let client = AdminClient::new(config);
        let shown = client.stream(Method::POST, path, body, |step: Step| {
            failed |= step.outcome == Outcome::Failed;
            show(&step)
        });
        tokio::select! {
            done = shown => done?,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("not waiting any longer; mini goes on with it, and `mini status` shows how far it is");
                return Ok(ExitCode::from(130));
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

fn show(step: &Step) -> anyhow::Result<()> {
    let of = if step.addon.is_empty() { String::new() } else { format!("{}: ", step.addon) };
    match step.outcome {
        Outcome::Step | Outcome::Done => output::print(format!("{of}{}\n", step.text))?,
        Outcome::Warning => eprintln!("warning: {of}{}", step.text),
        Outcome::Failed => eprintln!("error: {of}{}", step.text),
    }
    Ok(())
}

impl Addons {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let all = block_on(AdminClient::new(config).addons())?;
        match &self.action {
            Action::List { format } => {
                all.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                output::print(match format {
                    Format::Pretty => table(&all.addons),
                    Format::Yaml => yaml(&machine_readable(&all.addons))?,
                    Format::Json => pretty_json(&machine_readable(&all.addons))?,
                })?;
            }
            Action::Show { name } => {
                let found = all.addons.iter().find(|addon| addon.name == *name);
                let found = found.ok_or_else(|| {
                    anyhow::anyhow!("there is no addon {name:?}; `mini addons list` shows those there are")
                })?;
                output::print(details(found))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn status(addon: &Addon) -> &'static str {
    if addon.enabled { "enabled" } else { "disabled" }
}

fn table(addons: &[Addon]) -> String {
    let rows: Vec<[&str; 5]> = addons
        .iter()
        .map(|addon| [&*addon.name, status(addon), &*addon.repository, &*addon.version, &*addon.description])
        .collect();
    let heading = ["NAME", "STATUS", "REPOSITORY", "VERSION", "DESCRIPTION"];
    let mut text = String::new();
    let width =
        |column: usize| rows.iter().chain([&heading]).filter_map(|row| row.get(column)).map(|cell| cell.len()).max();
    let widths: Vec<usize> = (0..heading.len()).map(|column| width(column).unwrap_or_default()).collect();
    for row in [&heading].into_iter().chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn details(addon: &Addon) -> String {
    let mut text = format!("{}: {}\n", addon.name, addon.description);
    let _ = writeln!(text, "repository: {}\nversion: {}\nstatus: {}", addon.repository, addon.version, status(addon));
    if !addon.message.is_empty() {
        let _ = writeln!(text, "  {}", addon.message);
    }
    if !addon.depends_on.is_empty() {
        let _ = writeln!(text, "depends on: {}", addon.depends_on.join(", "));
    }
    if addon.arguments.is_empty() {
        text.push_str("arguments: none\n");
        return text;
    }
    text.push_str("arguments:\n");
    for argument in &addon.arguments {
        let default = match argument.default.as_deref() {
            None => "must be given".to_owned(),
            Some("") => "nothing by default".to_owned(),
            Some(default) => format!("{default} by default"),
        };
        let given = argument.value.as_ref().map(|value| format!("; now {value}")).unwrap_or_default();
        let _ = writeln!(text, "  {} ({}; {default}{given})", argument.name, argument.kind);
        if !argument.description.is_empty() {
            let _ = writeln!(text, "      {}", argument.description);
        }
    }
    text
}

/// As `mini status` and microk8s write them.
pub(crate) fn machine_readable(addons: &[Addon]) -> Value {
    let entry = |addon: &Addon| {
        let mut entry = json!({
            "name": addon.name, "repository": addon.repository, "description": addon.description,
            "version": addon.version, "status": status(addon),
        });
        if !addon.message.is_empty() {
            entry["message"] = addon.message.as_str().into();
        }
        entry
    };
    addons.iter().map(entry).collect()
}

/// The two lists of `mini status`.
pub(crate) fn pretty(addons: &[Addon]) -> String {
    let mut text = "addons:\n".to_owned();
    for (title, enabled) in [("enabled", true), ("disabled", false)] {
        let _ = writeln!(text, "  {title}:");
        for addon in addons.iter().filter(|addon| addon.enabled == enabled) {
            let _ = writeln!(text, "    {:<20} # ({}) {}", addon.name, addon.repository, addon.description);
            if !addon.message.is_empty() {
                let _ = writeln!(text, "    {:<20} #   {}", "", addon.message);
            }
        }
    }
    text
}

pub(crate) fn short(addons: &[Addon]) -> String {
    let line = |addon: &Addon| format!("{}/{}: {}\n", addon.repository, addon.name, status(addon));
    format!("addons:\n{}", addons.iter().map(line).collect::<String>())
}

/// One word for `status -a`; what is not there is not enabled.
pub(crate) fn word(addons: &[Addon], name: &str) -> &'static str {
    // `core/dns` is understood too, as `status --format short` writes it.
    let plain = name.rsplit('/').next().unwrap_or(name);
    addons.iter().find(|addon| addon.name == plain).map_or("disabled", status)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn two() -> Vec<Addon> {
        let addon = |name: &str, repository: &str, description: &str, enabled| Addon {
            name: name.into(),
            repository: repository.into(),
            description: description.into(),
            version: "1".into(),
            enabled,
            ..Addon::default()
        };
        vec![addon("argocd", "community", "Argo CD", false), addon("dns", "core", "Names for Services", true)]
    }

    #[test]
    fn status_has_microk8s_shape() {
        assert_eq!(
            pretty(&two()),
            "addons:\n  enabled:\n    dns                  # (core) Names for Services\n  disabled:\n    \
             argocd               # (community) Argo CD\n"
        );
        assert_eq!(short(&two()), "addons:\ncommunity/argocd: disabled\ncore/dns: enabled\n");
        assert_eq!(
            (word(&two(), "dns"), word(&two(), "core/dns"), word(&two(), "x")),
            ("enabled", "enabled", "disabled")
        );
        let mut ill = two().remove(1);
        ill.message = "0 of 1 ready".into();
        assert!(pretty(std::slice::from_ref(&ill)).contains("\n                         #   0 of 1 ready\n"));
        assert_eq!(machine_readable(&[ill])[0]["message"], "0 of 1 ready");
    }

    #[test]
    fn lists_and_details() {
        assert_eq!(
            table(&two()),
            "NAME    STATUS    REPOSITORY  VERSION  DESCRIPTION\nargocd  disabled  community   1        Argo CD\n\
             dns     enabled   core        1        Names for Services\n"
        );
        let mut dns = two().remove(1);
        dns.arguments.push(admin::Argument {
            name: "forwarders".into(),
            description: "Who else is asked".into(),
            kind: "addresses".into(),
            default: Some(String::new()),
            value: Some("1.1.1.1".into()),
        });
        let text = details(&dns);
        assert!(text.contains("  forwarders (addresses; nothing by default; now 1.1.1.1)\n      Who else"), "{text}");
    }
}
