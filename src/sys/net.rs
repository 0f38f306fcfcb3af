//! Addresses and routes of the machine, as `/proc` and the socket layer tell them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// One IPv4 route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub device: String,
    pub destination: Ipv4Addr,
    pub prefix: u8,
}

/// The machine's IPv4 routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |n: usize| u32::from_str_radix(fields.get(n)?, 16).ok();
        Some(Route {
            device: (*fields.first()?).to_owned(),
            destination: Ipv4Addr::from(hex(1)?.to_ne_bytes()),
            prefix: u8::try_from(hex(7)?.count_ones()).ok()?,
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The address this machine is reached at: the source of the default route, else any other address that is neither
/// loopback nor link-local. Devices whose name begins with one of `except` do not count.
#[must_use]
pub fn node_address(except: &[&str]) -> Option<IpAddr> {
    default_source().or_else(|| any_address(except))
}

/// The address packets to the outside would carry. Nothing is sent: connecting a datagram socket only asks the routes.
fn default_source() -> Option<IpAddr> {
    let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9));
    if routes().iter().any(|route| route.prefix == 0)
        && let Some(address) = source_towards(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), v4)
    {
        return Some(address);
    }
    source_towards(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), v6)
}

fn source_towards(local: SocketAddr, remote: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(local).ok()?;
    socket.connect(remote).ok()?;
    let address = socket.local_addr().ok()?.ip();
    is_global(address).then_some(address)
}

/// IPv4 addresses of the machine with their device: the local routing trie has every one of them.
fn any_address(except: &[&str]) -> Option<IpAddr> {
    // A connected route leads to each directly attached network; towards its own network a socket carries the address of
    // that device.
    let mut attached: Vec<Route> = routes().into_iter().filter(|route| route.prefix > 0).collect();
    attached.sort_by(|a, b| a.device.cmp(&b.device));
    attached.into_iter().filter(|route| !except.iter().any(|prefix| route.device.starts_with(prefix))).find_map(
        |route| {
            let towards = Ipv4Addr::from(u32::from(route.destination) | 1);
            source_towards(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((towards, 9)))
        },
    )
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_in_network_order() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    mini0\t0000010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let routes = parse_routes(text);
        assert_eq!(routes[0].prefix, 0);
        assert_eq!((routes[1].destination, routes[1].prefix), (Ipv4Addr::new(10, 1, 0, 0), 24));
    }
}
