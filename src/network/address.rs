//! Addresses that follow from the pod range.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The first address of the pod range: the bridge's own.
#[must_use]
pub(crate) fn gateway(pods: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pods.network()).wrapping_add(1))
}

/// A hardware address derived from the IPv4 address, so that an address that is used again never meets a stale ARP entry.
#[must_use]
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_and_mac_follow_the_range() {
        let pods: Ipv4Net = "10.1.0.0/16".parse().unwrap();
        assert_eq!(gateway(pods), Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(mac(gateway(pods)), [0x0a, 0x58, 10, 1, 0, 1]);
    }
}
