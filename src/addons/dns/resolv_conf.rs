//! Which name servers to forward to.

use super::server::Server;
use mini_client::CancellationToken;
use mini_sys::changes::Changes;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PORT: u16 = 53;

/// An address with or without a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok((ip, PORT).into());
    }
    text.parse()
        .map_err(|_| format!("{text} is not the address of a name server, such as 1.1.1.1 or [2606:4700::1]:53"))
}

/// The servers that a `resolv.conf` names. Those on the loopback are left out: inside a pod that is this very server.
pub(super) fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip: IpAddr = words.next().filter(|word| *word == "nameserver").and(words.next())?.parse().ok()?;
        (!ip.to_canonical().is_loopback() && !ip.is_unspecified()).then(|| (ip, PORT).into())
    });
    servers.collect()
}

/// Forwards to the servers of this file, which the kubelet keeps in step with the machine's network, until `cancel`.
pub(super) async fn follow(path: PathBuf, server: Arc<Server>, cancel: CancellationToken) {
    // Before the first look: what changes after it is told.
    let mut changes = Changes::of([path.clone()]);
    loop {
        read(&path, &server);
        let told = match &mut changes {
            Ok(changes) => cancel.run_until_cancelled(changes.next()).await,
            Err(_) => None,
        };
        if !matches!(told, Some(Ok(()))) {
            break;
        }
    }
    if !cancel.is_cancelled() {
        tracing::warn!(path = %path.display(), "changes of this file are not told; its servers are asked until the end");
    }
}

fn read(path: &Path, server: &Server) {
    // A machine without the file has nobody to ask.
    let servers = servers(&std::fs::read_to_string(path).unwrap_or_default());
    if server.forwarders.set(&servers) {
        tracing::info!(?servers, "other names are asked for elsewhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let text = "# made by hand\nsearch lan\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nnameserver ::1\n\
                    nameserver 2620:fe::fe\noptions edns0\nnameserver\nnameserver me\n";
        let expected: Vec<SocketAddr> = vec!["9.9.9.9:53".parse().unwrap(), "[2620:fe::fe]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }

    #[test]
    fn addresses_have_a_port_or_the_usual_one() {
        for (text, expected) in [
            ("1.1.1.1", "1.1.1.1:53"),
            ("1.1.1.1:5353", "1.1.1.1:5353"),
            ("2620:fe::fe", "[2620:fe::fe]:53"),
            ("[2620:fe::fe]", "[2620:fe::fe]:53"),
            ("[2620:fe::fe]:5353", "[2620:fe::fe]:5353"),
        ] {
            assert_eq!(address(text).unwrap(), expected.parse().unwrap());
        }
        assert!(address("dns.example").unwrap_err().contains("1.1.1.1"));
    }

    #[tokio::test]
    async fn the_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let server = Arc::new(Server {
            zone: super::super::fixture::zone(),
            index: Arc::default(),
            forwarders: super::super::forward::Forwarders::default(),
            metrics: super::super::metrics::Metrics::default(),
        });
        let cancel = CancellationToken::new();
        let following = tokio::spawn(follow(path.clone(), server.clone(), cancel.clone()));
        for text in ["nameserver 192.0.2.1\n", "nameserver 127.0.0.1\n", "nameserver 192.0.2.2\n", ""] {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            std::fs::write(&path, text).unwrap();
            let expected = servers(text).is_empty();
            for _ in 0..200 {
                if server.forwarders.is_empty() == expected {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            assert_eq!(server.forwarders.is_empty(), expected, "{text}");
        }
        cancel.cancel();
        following.await.unwrap();
    }
}
