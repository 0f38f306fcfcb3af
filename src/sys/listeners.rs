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
    /// Those of `sockets` that hear more than the machine itself.
    reachable: BTreeMap<(&'static str, u16), u64>,
}

impl Listeners {
    /// The sockets of the calling thread's network namespace.
    #[must_use]
    pub fn read() -> Self {
        let (mut sockets, mut reachable) = (BTreeMap::new(), BTreeMap::new());
        for (protocol, table, state) in TABLES {
            let text = std::fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).unwrap_or_default();
            for (address, port, inode) in text.lines().skip(1).filter_map(|line| listening(line, state)) {
                sockets.insert((protocol, port), inode);
                if !is_loopback(address) {
                    reachable.insert((protocol, port), inode);
                }
            }
        }
        Self { sockets, reachable }
    }

    /// Who listens on this port, on any address. `protocol` is `tcp` or `udp`, in any case.
    #[must_use]
    pub fn on(&self, protocol: &str, port: u16) -> Option<Listener> {
        found(&self.sockets, protocol, port)
    }

    /// The same, without programs that listen on loopback addresses only.
    #[must_use]
    pub fn reachable(&self, protocol: &str, port: u16) -> Option<Listener> {
        found(&self.reachable, protocol, port)
    }
}

fn found(sockets: &BTreeMap<(&'static str, u16), u64>, protocol: &str, port: u16) -> Option<Listener> {
    let protocol = ["tcp", "udp"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol))?;
    let pid = holder(*sockets.get(&(protocol, port))?);
    Some(Listener { pid, name: pid.map(process::name) })
}

/// 127.0.0.0/8, also mapped into IPv6, and `::1`, as the kernel writes them: words of the machine's byte order.
fn is_loopback(address: &str) -> bool {
    let v4 = |word: &str| u32::from_str_radix(word, 16).is_ok_and(|word| word.to_ne_bytes().first() == Some(&127));
    match address.len() {
        8 => v4(address),
        _ => {
            let mapped = format!("{:016}{:08X}", 0, u32::from_be(0xffff));
            let one = format!("{:024}{:08X}", 0, u32::from_be(1));
            address == one || address.strip_prefix(&mapped).is_some_and(v4)
        }
    }
}

/// Who listens on this TCP port, on any address.
#[must_use]
pub fn on_tcp_port(port: u16) -> Option<Listener> {
    Listeners::read().on("tcp", port)
}

fn listening<'a>(line: &'a str, state: &str) -> Option<(&'a str, u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, local) = fields.get(1)?.rsplit_once(':')?;
    if *fields.get(3)? != state {
        return None;
    }
    Some((address, u16::from_str_radix(local, 16).ok()?, fields.get(9)?.parse().ok()?))
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
    fn who_listens_on_loopback_alone_is_not_reachable() {
        let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let outer = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |socket: &std::net::TcpListener| socket.local_addr().unwrap().port();
        let listeners = Listeners::read();
        assert!(listeners.on("tcp", port(&inner)).is_some() && listeners.reachable("tcp", port(&inner)).is_none());
        assert!(listeners.reachable("TCP", port(&outer)).is_some());
        for loopback in ["00000000000000000000000001000000", "0000000000000000FFFF00000100007F", "0100007F"] {
            assert!(is_loopback(loopback), "{loopback}");
        }
        assert!(!is_loopback("00000000000000000000000000000000"));
    }

    #[test]
    fn a_connection_is_no_listener() {
        let line = |state: &str| format!(" 0: 00000000:1F91 00000000:0000 {state} 0:0 0:0 0 0 0 78 1");
        assert_eq!(listening(&line("0A"), "0A"), Some(("00000000", 8081, 78)));
        assert_eq!(listening(&line("01"), "0A"), None);
    }
}
