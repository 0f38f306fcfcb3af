//! Other firewalls on the machine. An accept in our table does not overrule a drop in theirs, and docker, ufw and
//! firewalld drop what is forwarded unless told otherwise: so pods' traffic is let through in their own chains.
//!
//! Best effort: a firewall that cannot be opened is logged, and `mini` goes on. The rules carry the instance's name as
//! comment, which is how [`close`] finds them.

use crate::nft;
use serde_json::Value;
use std::process::Command;

/// Lets traffic from and to the bridge through every foreign chain that would stop it.
pub(crate) async fn open(bridge: &str, instance: &str) {
    let (bridge, instance) = (bridge.to_owned(), instance.to_owned());
    let _ = tokio::task::spawn_blocking(move || {
        let Ok(listing) = nft::run(&["-j", "list", "chains"], "") else { return };
        for chain in serde_json::from_str(&listing).map(|listing| stopping(&listing)).unwrap_or_default() {
            if !our_rules(&chain, &instance).is_empty() {
                continue;
            }
            let text = accept(&chain, &bridge, &instance);
            match nft::apply_now(&text) {
                Ok(()) => tracing::info!(chain = %chain.path(), "let pods through another firewall's chain"),
                Err(error) => tracing::warn!(chain = %chain.path(), %error, "pods may be cut off by this firewall"),
            }
        }
        legacy("-I", &bridge, &instance);
    })
    .await;
}

/// Removes what [`open`] added.
pub(crate) async fn close(bridge: &str, instance: &str) {
    let (bridge, instance) = (bridge.to_owned(), instance.to_owned());
    let _ = tokio::task::spawn_blocking(move || {
        if let Ok(listing) = nft::run(&["-j", "list", "chains"], "") {
            close_in(&listing, &instance);
        }
        legacy("-D", &bridge, &instance);
    })
    .await;
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: String,
}

impl Chain {
    fn path(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

fn chains(listing: &Value) -> impl Iterator<Item = (Chain, &Value)> {
    let entries = listing.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| entry.get("chain")).map(|chain| {
        let text = |key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        (Chain { family: text("family"), table: text("table"), name: text("name"), hook: text("hook") }, chain)
    })
}

/// Base chains that see forwarded or incoming IPv4 and drop by policy, or belong to firewalld, which rejects by a last rule.
fn stopping(listing: &Value) -> Vec<Chain> {
    let drops = |chain: &Value| chain.get("policy").and_then(Value::as_str) == Some("drop");
    let sees = |chain: &Chain| {
        matches!(chain.family.as_str(), "ip" | "inet") && matches!(chain.hook.as_str(), "forward" | "input")
    };
    chains(listing)
        .filter(|(chain, value)| {
            sees(chain) && (drops(value) || (chain.table == "firewalld" && chain.name.starts_with("filter_")))
        })
        .map(|(chain, _)| chain)
        .collect()
}

fn accept(chain: &Chain, bridge: &str, instance: &str) -> String {
    let (path, comment) = (chain.path(), comment(instance));
    let mut text = format!("insert rule {path} iifname \"{bridge}\" counter accept comment \"{comment}\"\n");
    if chain.hook == "forward" {
        text += &format!("insert rule {path} oifname \"{bridge}\" counter accept comment \"{comment}\"\n");
    }
    text
}

fn comment(instance: &str) -> String {
    format!("{instance} pods")
}

/// Deletes our rules from the foreign chains in `listing`.
fn close_in(listing: &str, instance: &str) {
    let Ok(listing) = serde_json::from_str::<Value>(listing) else { return };
    for (chain, _) in chains(&listing).filter(|(chain, _)| matches!(chain.hook.as_str(), "forward" | "input")) {
        for handle in our_rules(&chain, instance) {
            let _ = nft::apply_now(&format!("delete rule {} handle {handle}\n", chain.path()));
        }
    }
}

/// The handles of our rules in a foreign chain.
fn our_rules(chain: &Chain, instance: &str) -> Vec<u64> {
    let listing = nft::run(&["-j", "list", "chain", &chain.family, &chain.table, &chain.name], "").unwrap_or_default();
    serde_json::from_str(&listing).map(|rules| ours(&rules, instance)).unwrap_or_default()
}

fn ours(rules: &Value, instance: &str) -> Vec<u64> {
    let entries = rules.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let wanted = comment(instance);
    entries
        .iter()
        .filter_map(|entry| entry.get("rule"))
        .filter(|rule| rule.get("comment").and_then(Value::as_str) == Some(&wanted))
        .filter_map(|rule| rule.get("handle").and_then(Value::as_u64))
        .collect()
}

/// The old iptables keep rules of their own that nft does not see; they are asked only when in use.
fn legacy(action: &str, bridge: &str, instance: &str) {
    let in_use = std::fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.contains("filter"));
    let Some(program) = nft::program("iptables-legacy").filter(|_| in_use) else { return };
    let comment = comment(instance);
    for (chain, side) in [("FORWARD", "-i"), ("FORWARD", "-o"), ("INPUT", "-i")] {
        let rule = [chain, side, bridge, "-m", "comment", "--comment", &comment, "-j", "ACCEPT"];
        let run = |action: &str| Command::new(&program).arg("-w").arg(action).args(rule).output();
        // -C says whether it is there; a rule must be neither doubled nor missed.
        let present = run("-C").is_ok_and(|output| output.status.success());
        if present != (action == "-I") {
            let _ = run(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_chains_that_stop_pods_are_opened() {
        let chain = |family: &str, table: &str, name: &str, hook: &str, policy: &str| {
            json!({ "chain": {
            "family": family, "table": table, "name": name, "hook": hook, "policy": policy } })
        };
        let listing = json!({ "nftables": [
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            chain("ip", "filter", "INPUT", "input", "accept"),
            chain("ip6", "filter", "FORWARD", "forward", "drop"),
            chain("ip", "nat", "PREROUTING", "prerouting", "drop"),
            chain("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
        ] });
        let names: Vec<_> = stopping(&listing).iter().map(Chain::path).collect();
        assert_eq!(names, ["ip filter FORWARD", "inet firewalld filter_FORWARD"]);
        let text = accept(&stopping(&listing)[0], "mini0", "mini");
        assert!(text.contains("oifname \"mini0\"") && text.contains("comment \"mini pods\""), "{text}");
    }
}
