//! ADD, DEL and CHECK.
//!
//! The pod's own address is a /32 with a route to the gateway: everything a pod sends passes the host's IP layer, also
//! to its neighbours on the bridge. So services, policies and connection tracking see both directions without
//! br_netfilter, a module that containers and small kernels lack.

use super::protocol::{Call, Code, Failure, Interface, result};
use crate::ipam::{Lease, Pool};
use crate::link::{Links, Pair, veth_name};
use crate::{address, nft, ports};
use mini_sys::listeners::Listeners;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

pub(super) async fn add(call: &Call) -> Result<Value, Failure> {
    let config = &call.config;
    let pods = config.pods()?;
    let gateway = address::gateway(pods);
    let netns = open_netns(&call.netns)?;
    let pool = Pool::new(config.leases.clone(), pods);
    let mappings = ports::wanted(&config.ports()?);
    let lease = Lease { container: call.container.clone(), interface: call.interface.clone(), ports: mappings };
    let pod = pool.lease(lease.clone())?;
    let made = connect(call, &netns, pod, gateway, &lease).await;
    if made.is_err() {
        // The runtime calls DEL after a failed ADD, but need not.
        let _ = del(call).await;
    }
    made
}

async fn connect(call: &Call, netns: &File, pod: Ipv4Addr, gateway: Ipv4Addr, lease: &Lease) -> Result<Value, Failure> {
    let config = &call.config;
    let links = Links::open()?;
    let mtu = match config.mtu {
        Some(mtu) => mtu,
        None => links.default_mtu().await?,
    };
    let bridge = match links.find(&config.bridge).await? {
        Some(bridge) => bridge.index,
        None => links.ensure_bridge(&config.bridge, gateway, config.pods()?.prefix_len(), mtu).await?,
    };
    let host = veth_name(&call.container, &call.interface);
    let mac = address::mac(pod);
    let pair = Pair { host_name: &host, pod_name: &call.interface, pod_mac: mac, pod: netns.as_fd(), bridge, mtu };
    links.add_veth(&pair).await?;
    inside(netns, async |links| {
        let link = links.set_up(&call.interface).await?;
        links.add_address(link, pod, 32).await?;
        Ok(links.add_pod_routes(link, gateway).await?)
    })?;
    let open = ports::open(&config.table, pod, &lease.ports);
    if !open.is_empty() {
        let listeners = Listeners::read();
        for mapping in &lease.ports {
            if let Some(program) = listeners.on(&mapping.protocol, mapping.host_port) {
                eprintln!("host port {} is taken from {program}, which listens on it", mapping.host_port);
            }
        }
        nft::apply_now(&open)?;
    }
    let interfaces = [
        Interface { name: &config.bridge, mac: Some(address::mac(gateway)), sandbox: None },
        Interface { name: &host, mac: None, sandbox: None },
        Interface { name: &call.interface, mac: Some(mac), sandbox: Some(&call.netns) },
    ];
    Ok(result(&config.cni_version, &interfaces, format!("{pod}/32"), Some(gateway.to_string())))
}

/// Containerd before 2.0 calls a plugin for `lo` too.
pub(super) fn loopback(call: &Call) -> Result<Value, Failure> {
    let netns = open_netns(&call.netns)?;
    inside(&netns, async |links| Ok(links.set_up("lo").await.map(drop)?))?;
    let lo = [Interface { name: "lo", mac: Some([0; 6]), sandbox: Some(&call.netns) }];
    Ok(result(&call.config.cni_version, &lo, "127.0.0.1/8".to_owned(), None))
}

pub(super) async fn del(call: &Call) -> Result<(), Failure> {
    // The host's end takes the pod's with it, also when the namespace is gone already.
    Links::open()?.delete(&veth_name(&call.container, &call.interface)).await?;
    let pool = Pool::new(call.config.leases.clone(), call.config.pods()?);
    let Some((pod, lease)) = pool.find(&call.container, &call.interface)? else { return Ok(()) };
    for text in ports::close(&call.config.table, pod, &lease.ports) {
        // Refused when another pod has the port by now, or the table is gone.
        let _ = nft::apply_now(&text);
    }
    for mapping in lease.ports.iter().filter(|mapping| mapping.protocol.eq_ignore_ascii_case("udp")) {
        crate::proxy::forget_udp_port(mapping.host_port);
    }
    Ok(pool.release(pod, &call.container)?)
}

/// Whether the pod still has what ADD gave it.
pub(super) fn check(call: &Call) -> Result<(), Failure> {
    let pool = Pool::new(call.config.leases.clone(), call.config.pods()?);
    let unknown = |message: String| Failure::new(Code::UnknownContainer, message);
    let Some((pod, _)) = pool.find(&call.container, &call.interface)? else {
        return Err(unknown(format!("container {} has no address", call.container)));
    };
    let netns = open_netns(&call.netns)?;
    inside(&netns, async |links| {
        let link = links.find(&call.interface).await?;
        let link = link.ok_or_else(|| unknown(format!("interface {} is gone", call.interface)))?;
        let held = links.addresses().await?.contains(&(link.index, pod));
        if held { Ok(()) } else { Err(unknown(format!("interface {} lost address {pod}", call.interface))) }
    })
}

fn open_netns(path: &str) -> Result<File, Failure> {
    let failed = |error| Failure::new(Code::UnknownContainer, format!("cannot open network namespace {path}: {error}"));
    File::open(path).map_err(failed)
}

/// Runs `work` inside the namespace, on a thread of its own that ends with it: no thread ever needs to find its way back.
fn inside<T: Send>(netns: &File, work: impl AsyncFnOnce(&Links) -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let entered = || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| {
            Failure::new(Code::Kernel, format!("cannot enter the pod's network namespace: {error}"))
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(Failure::io)?;
        runtime.block_on(async {
            let links = Links::open()?;
            work(&links).await
        })
    };
    let panicked = |_| Err(Failure::new(Code::Kernel, "the thread in the pod's network namespace panicked"));
    std::thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(panicked))
}
