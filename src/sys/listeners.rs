//! Who listens on a port: the kernel's socket tables, and the process that holds the socket.

use crate::process;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The kernel's tables, and the state of a listener in them: LISTEN for TCP, CLOSE ("unconnected") for UDP.
const TABLES: [(&str, &str, &str); 4] =
    [("tcp", "tcp", "0A"), ("tcp", "tcp6", "0A"), ("udp", "udp", "07"), ("udp", "udp6", "07")];

/// A listening socket's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub pid: Option<i32>,
    pub name: Option<String>,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.pid) {
            (Some(name), Some(pid)) => write!(f, "{name} (process {pid})"),
            _ => f.write_str("a process that cannot be seen from here"),
        }
    }
}

/// All listening sockets, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// Protocol and port → inode.
    sockets: BTreeMap<(&'static str, u16), u64>,
}

impl Listeners {
    /// The sockets of the calling thread's network namespace.
    #[must_use]
    pub fn read() -> Self {
        let mut sockets = BTreeMap::new();
        for (protocol, table, state) in TABLES {
            let text = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default();
            sockets.extend(
                text.lines()
                    .skip(1)
                    .filter_map(|line| listening(line, state))
                    .map(|(port, inode)| ((protocol, port), inode)),
            );
        }
        Self { sockets }
    }

    /// Who listens on this port, on any address. `protocol` is `tcp` or `udp`, in any case.
    #[must_use]
    pub fn on(&self, protocol: &str, port: u16) -> Option<Listener> {
        let protocol = ["tcp", "udp"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol))?;
        let pid = holder(*self.sockets.get(&(protocol, port))?);
        Some(Listener { pid, name: pid.map(process::name) })
    }
}

/// Who listens on this TCP port, on any address.
#[must_use]
pub fn on_tcp_port(port: u16) -> Option<Listener> {
    Listeners::read().on("tcp", port)
}

fn listening(line: &str, state: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    if *fields.get(3)? != state {
        return None;
    }
    Some((u16::from_str_radix(local, 16).ok()?, fields.get(9)?.parse().ok()?))
}

fn holder(inode: u64) -> Option<i32> {
    let wanted = format!("socket:[{inode}]");
    process::all().into_iter().map(|process| process.pid).find(|pid| {
        let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .flatten()
            .any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let listener = on_tcp_port(port).unwrap();
        assert_eq!(listener.pid, i32::try_from(std::process::id()).ok());
        assert!(listener.to_string().contains("(process "));
        drop(socket);
        assert_eq!(on_tcp_port(port), None);
    }

    #[test]
    fn a_connection_is_no_listener() {
        let line = |state: &str| format!(" 0: 00000000:1F91 00000000:0000 {state} 0:0 0:0 0 0 0 78 1");
        assert_eq!(listening(&line("0A"), "0A"), Some((8081, 78)));
        assert_eq!(listening(&line("01"), "0A"), None);
    }
}
