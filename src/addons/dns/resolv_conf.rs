//! Which name servers to forward to.

use std::net::{IpAddr, SocketAddr};

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
}
