//! The `nft` program: text on its standard input, applied as one transaction; and the base table.

use crate::Config;
use crate::ipam::Lease;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the program nft is missing: install the package nftables")]
    Missing,
    #[error("cannot run {program}: {source}")]
    Run { program: PathBuf, source: std::io::Error },
    #[error("nft refused: {message}")]
    Refused { message: String },
}

/// Where `nft` is; service managers and containerd may leave `sbin` out of the search path.
pub(crate) fn path() -> Option<PathBuf> {
    program("nft")
}

pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&search).chain(usual).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Applies the text off the async threads.
pub(crate) async fn apply(text: String) -> Result<(), Error> {
    let applied = tokio::task::spawn_blocking(move || apply_now(&text)).await;
    applied.unwrap_or_else(|panic| Err(Error::Refused { message: panic.to_string() }))
}

/// Applies the text, all of it or nothing.
pub(crate) fn apply_now(text: &str) -> Result<(), Error> {
    run(&["-f", "-"], text).map(drop)
}

/// Runs `nft` with `arguments` and `input`; its standard output.
pub(crate) fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let program = path().ok_or(Error::Missing)?;
    let failed = |source| Error::Run { program: program.clone(), source };
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // nft reads all of its input before it writes, so this cannot block on a full pipe; an early exit shows below.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Refused { message });
    }
    written.map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The base table, replaced whole: masquerade of what pods send outside, host ports, and what protects 127.0.0.0/8.
///
/// Chains for the hooks, maps for what changes: a host port is one element, whatever their number.
pub(crate) fn base(config: &Config, leases: &[(Ipv4Addr, Lease)]) -> String {
    let Config { table, bridge, pod_cidr, .. } = config;
    let mut text = format!(
        r#"add table ip {table}
delete table ip {table}
table ip {table} {{
	map hostports {{
		type inet_proto . inet_service : ipv4_addr . inet_service
	}}
	map hostports-ip {{
		type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
	}}
	set hairpin {{
		type ipv4_addr . ipv4_addr
	}}
	chain martians {{
		type filter hook prerouting priority -300; policy accept;
		iifname "{bridge}" ip daddr 127.0.0.0/8 drop
		iifname "{bridge}" ip saddr 127.0.0.0/8 drop
	}}
	chain redirects {{
		type filter hook output priority 0; policy accept;
		oifname "{bridge}" icmp type redirect drop
	}}
	chain to-hostports {{
		dnat ip addr . port to meta l4proto . ip daddr . th dport map @hostports-ip
		dnat ip addr . port to meta l4proto . th dport map @hostports
	}}
	chain prerouting {{
		type nat hook prerouting priority -99; policy accept;
		fib daddr type local goto to-hostports
	}}
	chain output {{
		type nat hook output priority -99; policy accept;
		fib daddr type local goto to-hostports
	}}
	chain postrouting {{
		type nat hook postrouting priority 100; policy accept;
		oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
		ip saddr . ip daddr @hairpin masquerade
		ip saddr {pod_cidr} ip daddr != {pod_cidr} oifname != {{ "{bridge}", "lo" }} masquerade
	}}
}}
"#
    );
    for (address, lease) in leases {
        let _ = write!(text, "{}", crate::ports::open(table, *address, &lease.ports));
    }
    text
}
