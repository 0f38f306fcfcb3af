//! Which addresses the node, its gateway and its pods have.

use crate::link::{self, Links};
use crate::{Config, Error};
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

/// The first address of the pod range: the bridge's own.
#[must_use]
pub fn gateway(pods: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(pods.network()).wrapping_add(1))
}

/// A hardware address derived from the IPv4 address, so that an address that is used again never meets a stale ARP entry.
#[must_use]
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The node's address: the default route's, else any global one that is not a bridge of ours, else the pods' gateway.
pub async fn node_address(pods: Ipv4Net) -> Result<IpAddr, Error> {
    let links = Links::open()?;
    let addresses: Vec<(u32, Ipv4Addr)> =
        links.addresses().await?.into_iter().filter(|(_, address)| !pods.contains(address)).collect();
    if let Some(route) = links.routes().await?.into_iter().find(link::Route::is_default) {
        if let Some(source) = route.source {
            return Ok(source.into());
        }
        if let Some((_, address)) = addresses.iter().find(|(device, _)| Some(*device) == route.device) {
            return Ok((*address).into());
        }
    }
    Ok(addresses.first().map_or_else(|| gateway(pods), |(_, address)| *address).into())
}

/// Refuses ranges that would take part of a network the machine already reaches in another way.
///
/// A wider route of somebody else (a VPN's 10.0.0.0/8) is fine: ours is more specific.
pub(crate) async fn check_ranges(links: &Links, config: &Config) -> Result<(), Error> {
    for route in links.routes().await? {
        for (what, ours) in [("pod", config.pod_cidr), ("service", config.service_cidr)] {
            if !ours.contains(&route.to) {
                continue;
            }
            let device = match route.device {
                Some(index) => links.name(index).await.unwrap_or_default(),
                None => String::new(),
            };
            if device != config.bridge {
                return Err(Error::Overlap { what, ours, theirs: route.to, device });
            }
        }
    }
    Ok(())
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
