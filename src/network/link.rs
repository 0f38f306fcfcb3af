//! Links, addresses and routes over rtnetlink.
//!
//! Each [`Links`] speaks to the network namespace its thread was in when it was opened. All changes are idempotent.

use crate::address;
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The length of an interface name that the kernel takes, without the NUL.
const NAME_MAX: usize = 15;
const DEFAULT_MTU: u32 = 1500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Socket(std::io::Error),
    #[error("cannot {what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("the kernel made no interface {0}")]
    Missing(String),
    #[error("the bridge name {0:?} is longer than {NAME_MAX} bytes")]
    Name(String),
    #[error("an interface {0} exists already and is no bridge: choose another bridge name in the configuration")]
    NoBridge(String),
}

/// One netlink connection.
pub(crate) struct Links {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What is known of an interface that was looked up.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) mac: Vec<u8>,
    pub(crate) controller: Option<u32>,
    mtu: Option<u32>,
    is_bridge: bool,
}

impl Links {
    /// Opens a connection to the calling thread's network namespace. Must run inside a tokio runtime.
    pub(crate) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Found>, Error> {
        let got = self.handle.link().get().match_name(name).execute().try_next().await;
        match got {
            Ok(message) => Ok(message.as_ref().map(found)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => Err(failed(format!("look up interface {name}"))(error)),
        }
    }

    /// The bridge `name`, up, with `address` and a fixed hardware address; its index.
    pub(crate) async fn ensure_bridge(
        &self,
        name: &str,
        address: Ipv4Addr,
        prefix: u8,
        mtu: u32,
    ) -> Result<u32, Error> {
        if name.len() > NAME_MAX {
            return Err(Error::Name(name.to_owned()));
        }
        let bridge = match self.find(name).await? {
            Some(bridge) => bridge,
            None => {
                // Without a fixed hardware address the bridge takes its lowest port's, and pods' ARP entries go stale
                // whenever a pod comes or goes.
                let request = LinkBridge::new(name)
                    .address(address::mac(address).to_vec())
                    .append_extra_attribute(LinkAttribute::Mtu(mtu));
                let made = self.handle.link().add(request.build()).execute().await;
                ignore(made, Errno::EXIST).map_err(failed(format!("create bridge {name}")))?;
                self.find(name).await?.ok_or_else(|| Error::Missing(name.to_owned()))?
            }
        };
        if !bridge.is_bridge {
            return Err(Error::NoBridge(name.to_owned()));
        }
        let up = LinkUnspec::new_with_index(bridge.index).up().mtu(mtu).build();
        self.handle.link().set(up).execute().await.map_err(failed(format!("set bridge {name} up")))?;
        self.add_address(bridge.index, address, prefix).await?;
        Ok(bridge.index)
    }

    /// Gives an interface an address; having it already is fine.
    pub(crate) async fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build();
        // The builder of a request is the only way in; it takes the parts again.
        let mut request = self.handle.address().add(index, address.into(), prefix);
        *request.message_mut() = message;
        ignore(request.execute().await, Errno::EXIST).map_err(failed(format!("give address {address}/{prefix}")))
    }

    /// Routes `to` out of the interface, with `source` as the address that programs of this host speak from.
    pub(crate) async fn ensure_route(&self, to: Ipv4Net, index: u32, source: Ipv4Addr) -> Result<(), Error> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.network(), to.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(source)
            .build();
        let added = self.handle.route().add(message).replace().execute().await;
        added.map_err(failed(format!("route {to}")))
    }

    /// A pod's routes: everything through `gateway`, which need not be on a connected network.
    pub(crate) async fn add_pod_routes(&self, index: u32, gateway: Ipv4Addr) -> Result<(), Error> {
        let near = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let added = self.handle.route().add(near).replace().execute().await;
        added.map_err(failed(format!("route to the gateway {gateway}")))?;
        let far = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .output_interface(index)
            .gateway(gateway)
            .build();
        let added = self.handle.route().add(far).replace().execute().await;
        added.map_err(failed(format!("add the default route through {gateway}")))
    }

    /// One request makes the pair: the host's end on the bridge and up, the pod's end inside `pod`. (The kernel refuses to
    /// set that up before the pair is whole.)
    pub(crate) async fn add_veth(&self, pair: &Pair<'_>) -> Result<(), Error> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.pod_name)
            .mtu(pair.mtu)
            .address(pair.pod_mac.to_vec())
            .setns_by_fd(pair.pod.as_raw_fd())
            .build();
        let request = || {
            LinkMessageBuilder::<LinkVeth>::new(pair.host_name, pair.pod_name)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.clone())))
                .mtu(pair.mtu)
                .controller(pair.bridge)
                .up()
                .build()
        };
        let mut made = self.handle.link().add(request()).execute().await;
        if made.as_ref().is_err_and(|error| is(error, Errno::EXIST)) {
            // Left by a call that was killed half-way, or the runtime asks again.
            self.delete(pair.host_name).await?;
            made = self.handle.link().add(request()).execute().await;
        }
        made.map_err(failed(format!("create the pair {} and {}", pair.host_name, pair.pod_name)))?;
        // With bridge-nf-call-iptables on (docker sets it), DNAT to the sender itself happens inside the bridge.
        let host = self.find(pair.host_name).await?.ok_or_else(|| Error::Missing(pair.host_name.to_owned()))?;
        let port = LinkBridgePort::new(host.index).hairpin(true).build();
        let set = self.handle.link().set_port(port).execute().await;
        set.map_err(failed(format!("set hairpin mode of {}", pair.host_name)))
    }

    pub(crate) async fn set_up(&self, name: &str) -> Result<u32, Error> {
        let link = self.find(name).await?.ok_or_else(|| Error::Missing(name.to_owned()))?;
        let up = LinkUnspec::new_with_index(link.index).up().build();
        self.handle.link().set(up).execute().await.map_err(failed(format!("set {name} up")))?;
        Ok(link.index)
    }

    /// Deletes an interface; being gone already is fine.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        let deleted = self.handle.link().del(link.index).execute().await;
        ignore(deleted, Errno::NODEV).map_err(failed(format!("delete interface {name}")))
    }

    /// Names of the interfaces on the bridge.
    pub(crate) async fn ports_of(&self, bridge: u32) -> Result<Vec<String>, Error> {
        let mut ports = Vec::new();
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        while let Some(link) = links.try_next().await.map_err(failed("list interfaces".to_owned()))? {
            if found(&link).controller == Some(bridge) {
                ports.extend(name_of(&link));
            }
        }
        Ok(ports)
    }

    /// Whether there is a bridge whose name begins so.
    pub(crate) async fn any_bridge(&self, prefix: &str) -> Result<bool, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        let mut any = false;
        while let Some(link) = links.try_next().await.map_err(failed("list interfaces".to_owned()))? {
            any |= found(&link).is_bridge && name_of(&link).is_some_and(|name| name.starts_with(prefix));
        }
        Ok(any)
    }

    pub(crate) async fn delete_bridge_and_ports(&self, bridge: &str) -> Result<(), Error> {
        let Some(found) = self.find(bridge).await? else { return Ok(()) };
        for port in self.ports_of(found.index).await? {
            self.delete(&port).await?;
        }
        self.delete(bridge).await
    }

    /// The MTU of the default route's device, for pods to use the same.
    pub(crate) async fn default_mtu(&self) -> Result<u32, Error> {
        let Some(device) = self.default_device().await? else { return Ok(DEFAULT_MTU) };
        let got = self.handle.link().get().match_index(device).execute().try_next().await;
        let link = got.map_err(failed("look up the default route's interface".to_owned()))?;
        Ok(link.as_ref().and_then(|link| found(link).mtu).unwrap_or(DEFAULT_MTU))
    }

    /// The interface of the default route with the best metric.
    async fn default_device(&self) -> Result<Option<u32>, Error> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut routes = std::pin::pin!(self.handle.route().get(filter).execute());
        let mut best = None;
        while let Some(route) = routes.try_next().await.map_err(failed("list routes".to_owned()))? {
            best = best.into_iter().chain(default_route(&route)).min();
        }
        Ok(best.map(|(_, device)| device))
    }

    /// All IPv4 addresses with global scope, with the index of their interface.
    pub(crate) async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr)>, Error> {
        use rtnetlink::packet_route::address::{AddressAttribute, AddressScope};
        let mut addresses = std::pin::pin!(self.handle.address().get().execute());
        let mut list = Vec::new();
        while let Some(message) = addresses.try_next().await.map_err(failed("list addresses".to_owned()))? {
            if message.header.scope != AddressScope::Universe {
                continue;
            }
            for attribute in &message.attributes {
                if let AddressAttribute::Local(std::net::IpAddr::V4(address)) = attribute {
                    list.push((message.header.index, *address));
                }
            }
        }
        Ok(list)
    }
}

/// The two ends of a pod's cable.
pub(crate) struct Pair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: [u8; 6],
    pub(crate) pod: BorrowedFd<'a>,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
}

/// The host's end of a pod's pair. Stable over restarts and upgrades, because DEL finds the pair by it.
pub(crate) fn veth_name(container: &str, interface: &str) -> String {
    // FNV-1a: container ids may share a prefix, and the standard library's hasher may change.
    let bytes = container.bytes().chain(*b"/").chain(interface.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("veth{:011x}", hash >> 20)
}

fn found(message: &LinkMessage) -> Found {
    use rtnetlink::packet_route::link::{InfoKind, LinkInfo};
    let mut link =
        Found { index: message.header.index, mac: Vec::new(), controller: None, mtu: None, is_bridge: false };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge |= infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Bridge)));
            }
            _ => {}
        }
    }
    link
}

fn name_of(message: &LinkMessage) -> Option<String> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Metric and interface of a unicast default route.
fn default_route(message: &RouteMessage) -> Option<(u32, u32)> {
    if message.header.destination_prefix_length != 0 || message.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut metric, mut device) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    Some((metric, device?))
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno.raw_os_error())
}

fn ignore(result: Result<(), rtnetlink::Error>, errno: Errno) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is(&error, errno) => Ok(()),
        other => other,
    }
}

fn failed(what: String) -> impl FnOnce(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_names_fit_and_differ() {
        let (a, b) = (veth_name("container-1", "eth0"), veth_name("container-2", "eth0"));
        assert_eq!((a.len(), b.len()), (15, 15));
        assert_ne!(a, b);
        assert_eq!(a, veth_name("container-1", "eth0"));
    }
}
