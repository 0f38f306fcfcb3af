//! Kernel settings that pods need, with the values found before, so that a reset puts them back.

use crate::{Config, Error, write_error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A setting of the whole machine: exactly this, or at least this.
enum Wanted {
    Exactly(u64),
    AtLeast(u64),
}

/// Set where need be, and recorded. Forwarding; redirects off, which apply to an interface when either it or `all` says
/// so (pods share their gateway's interface, so nearly every packet would earn one); and room for the inotify users that
/// pods are.
const MACHINE: [(&str, Wanted); 4] = [
    ("net/ipv4/ip_forward", Wanted::Exactly(1)),
    ("net/ipv4/conf/all/send_redirects", Wanted::Exactly(0)),
    ("fs/inotify/max_user_instances", Wanted::AtLeast(8192)),
    ("fs/inotify/max_user_watches", Wanted::AtLeast(524_288)),
];

/// Settings of the bridge alone; they go with it. Connections from 127.0.0.1 to node ports leave through it, which the
/// kernel refuses without `route_localnet`; the base rules drop what others would send to 127.0.0.0/8 (CVE-2020-8558).
const BRIDGE: [(&str, u64); 2] = [("route_localnet", 1), ("send_redirects", 0)];

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(name: &str) -> Option<u64> {
    std::fs::read_to_string(file(name)).ok()?.trim().parse().ok()
}

/// What was found before; of this boot only, because settings do not outlive it.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    boot: String,
    before: BTreeMap<String, u64>,
}

impl Record {
    fn read(path: &Path) -> Self {
        let boot = std::fs::read_to_string(file("kernel/random/boot_id")).unwrap_or_default().trim().to_owned();
        let found: Option<Self> = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        found.filter(|record| record.boot == boot).unwrap_or(Self { boot, before: BTreeMap::new() })
    }
}

/// Sets what is not so already.
pub(crate) fn apply(config: &Config) -> Result<(), Error> {
    let path = config.sysctl_record();
    let mut record = Record::read(&path);
    for (name, wanted) in MACHINE {
        let Some(current) = read(name) else { continue };
        let wanted = match wanted {
            Wanted::Exactly(value) if current != value => value,
            Wanted::AtLeast(value) if current < value => value,
            _ => continue,
        };
        // Recorded before it is set: a crash in between restores a value to itself, never loses one.
        if record.before.insert(name.to_owned(), current) != Some(current) {
            let text = serde_json::to_vec(&record).unwrap_or_default();
            std::fs::write(&path, text).map_err(write_error(&path))?;
        }
        set(name, wanted)?;
    }
    for (name, value) in BRIDGE {
        set(&format!("net/ipv4/conf/{}/{name}", config.bridge), value)?;
    }
    Ok(())
}

/// Puts recorded values back and forgets them. While another instance's pods are `in_use` of them they stay.
pub(crate) fn restore(config: &Config, in_use: bool) -> Result<(), Error> {
    let path = config.sysctl_record();
    if !in_use {
        for (name, value) in Record::read(&path).before {
            set(&name, value)?;
        }
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(write_error(&path)(error)),
        _ => Ok(()),
    }
}

fn set(name: &str, value: u64) -> Result<(), Error> {
    let path = file(name);
    std::fs::write(&path, value.to_string()).map_err(write_error(&path))
}
