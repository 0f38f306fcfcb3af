//! The arguments an addon takes: `NAME:VALUE` and `NAME:key=value;key=value`.

use super::template::{Form, Variables};
use mini_api::quantity::Quantity;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Argument {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) kind: Kind,
    /// Left out: it must be given.
    pub(super) default: Option<String>,
    /// The only values allowed; empty: all of the kind.
    #[serde(default)]
    pub(super) choices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Text,
    Name,
    Number,
    Port,
    Boolean,
    Address,
    Addresses,
    Network,
    Quantity,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl Kind {
    fn form(self) -> Form {
        match self {
            Self::Number | Self::Port => Form::Number,
            Self::Boolean => Form::Boolean,
            _ => Form::Text,
        }
    }

    /// What a value must be, and whether this is one.
    fn judge(self, value: &str) -> (&'static str, bool) {
        match self {
            Self::Text => ("text on one line", !value.chars().any(char::is_control)),
            Self::Name => ("a DNS name", mini_api::names::is_dns1123_subdomain(value).is_empty()),
            Self::Number => ("a whole number", value.parse::<i64>().is_ok()),
            Self::Port => ("a port from 1 to 65535", value.parse::<u16>().is_ok_and(|port| port > 0)),
            Self::Boolean => ("true or false", value.parse::<bool>().is_ok()),
            Self::Address => ("an IP address", value.parse::<IpAddr>().is_ok()),
            Self::Addresses => (
                "IP addresses, each with or without a port, with commas between",
                value.split(',').all(|one| one.parse::<IpAddr>().is_ok() || one.parse::<SocketAddr>().is_ok()),
            ),
            Self::Network => ("a network such as 10.0.0.0/16", is_network(value)),
            Self::Quantity => ("a quantity such as 500m or 20Gi", Quantity::parse(value).is_ok()),
        }
    }
}

fn is_network(value: &str) -> bool {
    let Some((address, prefix)) = value.split_once('/') else { return false };
    let longest = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
}

impl Argument {
    fn check(&self, value: &str) -> Result<(), String> {
        let refuse = |wanted: &str| Err(format!("argument `{}` is {value:?}, but it must be {wanted}", self.name));
        if !self.choices.is_empty() && !self.choices.iter().any(|choice| choice == value) {
            return refuse(&self.choices.join(" or "));
        }
        match self.kind.judge(value) {
            (_, true) => Ok(()),
            (wanted, false) => refuse(wanted),
        }
    }

    /// Checks the declaration itself.
    pub(super) fn check_declaration(&self) -> Result<(), String> {
        if self.name.is_empty() || !self.name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("an argument's name is letters and digits, not {:?}", self.name));
        }
        match &self.default {
            Some(value) if !value.is_empty() => self.check(value),
            _ => Ok(()),
        }
    }
}

/// What was given, by name; the values that differ from the defaults. `known` is what the last enable was given.
pub(super) fn parse(
    declared: &[Argument],
    text: &str,
    known: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let find = |name: &str| declared.iter().find(|argument| argument.name == name);
    // Those of a version that had other arguments are dropped.
    let mut given: BTreeMap<String, String> =
        known.iter().filter(|(name, _)| find(name).is_some()).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (place, part) in text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty()) {
        let named = part.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let (argument, value) = match named {
            Some((name, value)) => {
                (find(name).ok_or_else(|| format!("there is no argument `{name}`; {}", offered(declared)))?, value)
            }
            None if place == 0 => (declared.first().ok_or("it takes no arguments")?, part),
            None => return Err(format!("{part:?} must be an argument's name, \"=\" and its value")),
        };
        if value.is_empty() {
            given.remove(&argument.name);
            continue;
        }
        argument.check(value)?;
        given.insert(argument.name.clone(), value.to_owned());
    }
    for argument in declared {
        if argument.default.is_none() && !given.contains_key(&argument.name) {
            let about =
                if argument.description.is_empty() { String::new() } else { format!(": {}", argument.description) };
            return Err(format!("the argument `{}` must be given{about}", argument.name));
        }
    }
    Ok(given)
}

fn offered(declared: &[Argument]) -> String {
    if declared.is_empty() {
        return "it takes none".to_owned();
    }
    let names: Vec<&str> = declared.iter().map(|argument| argument.name.as_str()).collect();
    format!("there are {}", names.join(", "))
}

/// Puts every argument among the variables, as `args.NAME`.
pub(super) fn fill(variables: &mut Variables, declared: &[Argument], given: &BTreeMap<String, String>) {
    for argument in declared {
        let value = given.get(&argument.name).or(argument.default.as_ref()).map(String::as_str).unwrap_or_default();
        variables.set(format!("args.{}", argument.name), argument.kind.form(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &str, kind: Kind, default: Option<&str>) -> Argument {
        let default = default.map(str::to_owned);
        Argument { name: name.into(), description: String::new(), kind, default, choices: Vec::new() }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_first_argument_needs_no_name() {
        let declared = [argument("forwarders", Kind::Addresses, Some("")), argument("ttl", Kind::Number, Some("30"))];
        let parsed = |text: &str, known: &[(&str, &str)]| parse(&declared, text, &map(known)).unwrap();
        assert_eq!(parsed("1.1.1.1,[::1]:53", &[]), map(&[("forwarders", "1.1.1.1,[::1]:53")]));
        assert_eq!(parsed("1.1.1.1; ttl=5", &[]), map(&[("forwarders", "1.1.1.1"), ("ttl", "5")]));
        assert_eq!(parsed("", &[("ttl", "5"), ("gone", "1")]), map(&[("ttl", "5")]));
        assert_eq!(parsed("ttl=;forwarders=9.9.9.9:5353", &[("ttl", "5")]), map(&[("forwarders", "9.9.9.9:5353")]));
    }

    #[test]
    fn refusals_say_what_is_wanted() {
        let mut mode = argument("mode", Kind::Text, Some("a"));
        mode.choices = vec!["a".into(), "b".into()];
        let declared = [argument("range", Kind::Network, None), mode, argument("port", Kind::Port, Some("80"))];
        for (text, said) in [
            ("", "the argument `range` must be given"),
            ("10.0.0.0", "argument `range` is \"10.0.0.0\", but it must be a network"),
            ("10.0.0.0/33", "a network"),
            ("10.0.0.0/8;mode=c", "must be a or b"),
            ("10.0.0.0/8;port=0", "a port from 1 to 65535"),
            ("10.0.0.0/8;8080", "must be an argument's name"),
            ("size=1", "there is no argument `size`; there are range, mode, port"),
        ] {
            let error = parse(&declared, text, &BTreeMap::new()).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert_eq!(parse(&[], "x", &BTreeMap::new()).unwrap_err(), "it takes no arguments");
    }
}
