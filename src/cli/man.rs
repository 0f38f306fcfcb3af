//! `mini man`: the manual page, from the same definitions as the commands and settings. For packages; not shown in help.

use crate::output;
use clap::Command;
use std::fmt::Write;
use std::process::ExitCode;

pub(crate) fn run(command: &mut Command) -> anyhow::Result<ExitCode> {
    command.build();
    output::print(page(command))?;
    Ok(ExitCode::SUCCESS)
}

fn page(mini: &Command) -> String {
    let mut text = format!(".TH MINI 1 \"\" \"mini {}\" \"User Commands\"\n", env!("CARGO_PKG_VERSION"));
    let about = |command: &Command| command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, ".SH NAME\nmini \\- {}", roff(&lowered(&about(mini))));
    let _ = writeln!(text, ".SH SYNOPSIS\n.B mini\n[\\fIoptions\\fR] \\fIcommand\\fR");
    text.push_str(".SH COMMANDS\n");
    for command in mini.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let _ = writeln!(text, ".SS {}\n{}.", roff(command.get_name()), roff(&about(command)));
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let _ = writeln!(text, ".TP\n.B {}\n{}.", roff(inner.get_name()), roff(&about(inner)));
        }
        options(&mut text, command, false);
    }
    text.push_str(".SH OPTIONS\n");
    options(&mut text, mini, true);
    text.push_str(".SH CONFIGURATION\nDefaults, then ");
    let _ = writeln!(
        text,
        "{}, then the environment, then the command line; the last one that says something wins.",
        roff(mini_config::DEFAULT_FILE)
    );
    for field in mini_config::FIELDS {
        let default = match field.default {
            "" => String::new(),
            default => format!(" (default {default})"),
        };
        let heading = format!("{} or {}{default}", field.key, field.variable());
        let _ = writeln!(text, ".TP\n.B {}\n{}", roff(&heading), roff(field.doc));
    }
    text.push_str(
        ".SH EXIT STATUS\n0 for success, 1 for failure or a node that is not ready, 2 for a wrong command line.\n",
    );
    text
}

fn options(text: &mut String, command: &Command, global: bool) {
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        if matches!(option.get_id().as_str(), "help" | "version") || (option.is_global_set() && !global) {
            continue;
        }
        let flags =
            [option.get_short().map(|short| format!("-{short}")), option.get_long().map(|long| format!("--{long}"))];
        let mut heading = flags.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if let Some(names) = option.get_value_names().filter(|_| option.get_action().takes_values()) {
            heading = format!("{heading} {}", names.join(" "));
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, ".TP\n.B {}\n{}", roff(heading.trim()), roff(&help));
    }
}

fn lowered(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// What roff would take for its own is escaped.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_and_setting_is_in_it() {
        let mut mini = crate::Mini::command();
        mini.build();
        let page = page(&mini);
        for command in mini.get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(command.get_name() == "help" || page.contains(&format!(".SS {}\n", command.get_name())));
        }
        assert!(mini_config::FIELDS.iter().all(|field| page.contains(&roff(field.key))));
        assert!(page.contains("\\-\\-wait\\-ready"));
    }
}
