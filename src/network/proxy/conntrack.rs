//! Forgets UDP flows that lead to endpoints that are gone, over ctnetlink.
//!
//! TCP needs none of this: its connections end with their endpoint. A UDP client that keeps sending from one socket
//! would stay with the dead endpoint for as long as it sends.

use super::ruleset::{UdpDoor, UdpTargets};
use rtnetlink::sys::{Socket, SocketAddr};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;

const NETLINK_NETFILTER: isize = 12;
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const NESTED: u16 = 0x8000;
/// The header of netlink, and that of netfilter after it.
const HEADER: usize = 16 + 4;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const UDP: u8 = 17;

/// Forgets UDP flows that entered by one of `doors` and lead to none of its targets.
pub(super) fn forget(doors: &BTreeMap<UdpDoor, UdpTargets>) {
    let done = stale(doors).and_then(|flows| {
        let mut socket = open()?;
        for flow in &flows {
            exchange(&mut socket, DELETE, REQUEST, &attribute(ORIGINAL | NESTED, flow), |_| ())?;
        }
        Ok(flows.len())
    });
    match done {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "forgot UDP flows to endpoints that are gone"),
        Err(error) => tracing::debug!(%error, "UDP flows cannot be forgotten"),
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// The original tuples, as the kernel wrote them, of flows to forget.
fn stale(doors: &BTreeMap<UdpDoor, UdpTargets>) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    exchange(&mut open()?, GET, REQUEST | DUMP, &[], |flow| {
        let (Some(original), Some(reply)) = (find(flow, ORIGINAL), find(flow, REPLY)) else { return };
        let (Some(to), Some(from)) = (Tuple::read(original), Tuple::read(reply)) else { return };
        let by_address = doors.get(&(Some(to.destination), to.destination_port));
        let targets = by_address.or_else(|| doors.get(&(None, to.destination_port)));
        if to.protocol == UDP && targets.is_some_and(|targets| !targets.contains(&(from.source, from.source_port))) {
            found.push(original.to_vec());
        }
    })?;
    Ok(found)
}

/// Sends one message and reads answers until the kernel is done.
fn exchange(socket: &mut Socket, kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    const ACK: u16 = 0x4;
    // A dump ends by itself; everything else is acknowledged.
    let flags = if flags & DUMP == 0 { flags | ACK } else { flags };
    let mut message = Vec::with_capacity(HEADER + body.len());
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // AF_INET, version 0, resource 0.
    message.extend([2, 0, 0, 0]);
    message.extend(body);
    socket.send(&message, 0)?;
    loop {
        let (answers, _) = socket.recv_from_full()?;
        let mut rest = answers.as_slice();
        while let Some((kind, payload, next)) = message_in(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    // A flow that ended meanwhile is no failure.
                    let gone = -rustix::io::Errno::NOENT.raw_os_error();
                    return if code == 0 || code == gone { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(payload.get(4..).unwrap_or_default()),
            }
            rest = next;
        }
    }
}

/// The first message of a buffer: its type, its payload and what follows it.
pub(super) fn message_in(buffer: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*buffer.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*buffer.get(4..)?.first_chunk()?);
    let payload = buffer.get(16..length)?;
    Some((kind, payload, buffer.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of an attribute in a list of them.
pub(super) fn find(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*list.first_chunk()?));
        let kind = u16::from_ne_bytes(*list.get(2..)?.first_chunk()?) & !NESTED;
        let value = list.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        list = list.get(length.next_multiple_of(4)..)?;
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len());
    bytes.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One direction of a flow.
#[derive(Debug, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
}

impl Tuple {
    fn read(list: &[u8]) -> Option<Self> {
        let (ip, proto) = (find(list, 1)?, find(list, 2)?);
        let address = |kind| Some(Ipv4Addr::from(*find(ip, kind)?.first_chunk::<4>()?));
        let port = |kind| Some(u16::from_be_bytes(*find(proto, kind)?.first_chunk()?));
        Some(Self {
            protocol: *find(proto, 1)?.first()?,
            source: address(1)?,
            source_port: port(2)?,
            destination: address(2)?,
            destination_port: port(3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_are_read_from_nested_attributes() {
        let ip = [attribute(1, &[10, 0, 0, 1]), attribute(2, &[10, 0, 0, 2])].concat();
        let proto = [attribute(1, &[17]), attribute(2, &[0x10, 0x01]), attribute(3, &[0, 53])].concat();
        let list = [attribute(1 | NESTED, &ip), attribute(2 | NESTED, &proto)].concat();
        let tuple = Tuple::read(&list).unwrap();
        assert_eq!((tuple.protocol, tuple.source_port, tuple.destination_port), (17, 0x1001, 53));
        assert_eq!(tuple.destination, Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn torn_input_is_refused() {
        assert_eq!(find(&[1, 0, 0, 0, 9], 3), None);
        assert_eq!(find(&[200, 0, 3, 0, 9], 3), None);
        assert!(message_in(&[255, 0, 0, 0, 1, 0]).is_none());
    }
}
