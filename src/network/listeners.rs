//! Which local program listens on a port: an address translation rule takes the port from it without a word, so the
//! word has to come from us.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The kernel's listings, and the state of a listener in them: LISTEN for TCP, CLOSE ("unconnected") for UDP.
const LISTINGS: [(&str, &str, &str); 4] =
    [("tcp", "tcp", "0A"), ("tcp", "tcp6", "0A"), ("udp", "udp", "07"), ("udp", "udp6", "07")];

/// The ports of this host that programs listen on, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// (protocol, port) and the socket's inode.
    sockets: BTreeMap<(&'static str, u16), String>,
}

impl Listeners {
    #[must_use]
    pub fn read() -> Self {
        let mut listeners = Self::default();
        for (protocol, file, state) in LISTINGS {
            // The calling thread's network namespace, not the process's.
            let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default();
            listeners.sockets.extend(listening(&text, state).map(|(port, inode)| ((protocol, port), inode)));
        }
        listeners
    }

    /// The program that listens on this port, by name and process id, if there is one. `protocol` in any case.
    #[must_use]
    pub fn on(&self, protocol: &str, port: u16) -> Option<String> {
        let protocol = ["tcp", "udp"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol))?;
        let inode = self.sockets.get(&(protocol, port))?;
        Some(owner(inode).unwrap_or_else(|| "a local program".to_owned()))
    }
}

/// Port and inode of each socket in that state.
fn listening<'a>(text: &'a str, state: &'a str) -> impl Iterator<Item = (u16, String)> + 'a {
    text.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, found, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (*found == state).then(|| (port, (*inode).to_owned()))
    })
}

fn owner(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let path = process.path();
        // `self` and `thread-self` have files too.
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(files) = fs::read_dir(path.join("fd")) else { continue };
        if files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = Listeners::read().on("TCP", port).unwrap();
        assert!(named.contains(&std::process::id().to_string()), "{named}");
        drop(listener);
        assert_eq!(Listeners::read().on("tcp", port), None);
    }

    #[test]
    fn a_connection_is_no_listener() {
        let text = "sl local rem st\n \
            0: 0100007F:1F90 0100007F:AAAA 01 0:0 0:0 0 0 0 77 1\n \
            1: 00000000:1F91 00000000:0000 0A 0:0 0:0 0 0 0 78 1\n";
        assert_eq!(listening(text, "0A").collect::<Vec<_>>(), [(8081, "78".to_owned())]);
    }
}
