//! Who listens on a port: the kernel's socket tables, and the process that holds the socket.

use crate::process;
use std::fmt;

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

/// Who listens on this TCP port, on any address.
#[must_use]
pub fn on_tcp_port(port: u16) -> Option<Listener> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| listening_inode(line, port))
    })?;
    let pid = holder(inode);
    Some(Listener { pid, name: pid.map(process::name) })
}

const LISTEN: &str = "0A";

fn listening_inode(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    if *fields.get(3)? != LISTEN || u16::from_str_radix(local, 16).ok()? != port {
        return None;
    }
    fields.get(9)?.parse().ok()
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
}
