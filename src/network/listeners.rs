//! Which local program listens on a port: an address translation rule takes the port from it without a word, so the
//! word has to come from us.

use std::fs;
use std::path::Path;

/// The socket state of a listener in `/proc/thread-self/net`: LISTEN for TCP, CLOSE ("unconnected") for UDP.
const fn listening(protocol: &str) -> Option<(&'static str, &'static str)> {
    if protocol.eq_ignore_ascii_case("tcp") {
        Some(("tcp", "0A"))
    } else if protocol.eq_ignore_ascii_case("udp") {
        Some(("udp", "07"))
    } else {
        None
    }
}

/// The program that listens on this port of the host, by name and process id, if there is one.
#[must_use]
pub fn on_port(protocol: &str, port: u16) -> Option<String> {
    let (file, state) = listening(protocol)?;
    let inode = [file.to_owned(), format!("{file}6")].iter().find_map(|file| {
        inode_on_port(&fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).ok()?, state, port)
    })?;
    Some(owner(&inode).unwrap_or_else(|| "a local program".to_owned()))
}

/// Finds a listener's inode in the text of one file of `/proc/thread-self/net`.
fn inode_on_port(text: &str, state: &str, port: u16) -> Option<String> {
    text.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, found) = (fields.next()?, fields.nth(1)?);
        let listens = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()? == port && found == state;
        if listens { fields.nth(5).map(str::to_owned) } else { None }
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
        let named = on_port("TCP", port).unwrap();
        assert!(named.contains(&std::process::id().to_string()), "{named}");
        drop(listener);
        assert_eq!(on_port("tcp", port), None);
    }

    #[test]
    fn a_connection_is_no_listener() {
        let text = "sl local rem st\n 0: 0100007F:1F90 0100007F:AAAA 01 0:0 0:0 0 0 0 77 1\n 1: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 78 1\n";
        assert_eq!(inode_on_port(text, "0A", 8080), Some("78".to_owned()));
        assert_eq!(inode_on_port(text, "0A", 81), None);
    }
}
