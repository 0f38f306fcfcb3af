//! The sockets: datagrams by as many tasks as there are processors, and connections.

use super::message::Transport;
use super::server::{Server, Step};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Requests that wait for other servers at a time; each holds a socket or three.
const WAITING: usize = 256;
const CONNECTIONS: usize = 128;
/// A connection that asks nothing for this long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// No request is larger.
const LARGEST_REQUEST: usize = 4096;
/// After an error of the socket itself, so that one that stays costs no processor.
const PAUSE: Duration = Duration::from_millis(100);

/// A datagram socket that shares its address with others; the kernel spreads clients over them.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// The address itself, or IPv4's where the machine has no IPv6.
pub(super) fn usable(address: SocketAddr) -> SocketAddr {
    let without_ipv6 =
        address == SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())) && datagrams(address).is_err();
    if without_ipv6 { (Ipv4Addr::UNSPECIFIED, address.port()).into() } else { address }
}

/// Answers datagrams for ever.
pub(super) async fn serve_datagrams(server: Arc<Server>, socket: Arc<UdpSocket>, waiting: Arc<Semaphore>) {
    let mut packet = vec![0; LARGEST_REQUEST];
    let mut out = Vec::with_capacity(LARGEST_REQUEST);
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                tracing::error!(%error, "cannot receive");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match server.begin(packet.get(..length).unwrap_or_default(), Transport::Udp, &mut out) {
            Step::Silence => {}
            Step::Reply => send(&socket, &out, client).await,
            Step::Later(pending) => match waiting.clone().try_acquire_owned() {
                Ok(permit) => {
                    let (server, socket) = (server.clone(), socket.clone());
                    tokio::spawn(async move {
                        let reply = server.finish(*pending).await;
                        send(&socket, &reply, client).await;
                        drop(permit);
                    });
                }
                Err(_) => {
                    server.refuse(&pending, &mut out);
                    send(&socket, &out, client).await;
                }
            },
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "cannot reply");
    }
}

/// Answers connections for ever.
pub(super) async fn serve_connections(server: Arc<Server>, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Beyond the limit clients wait in the kernel's queue.
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(&server, stream).await {
                        tracing::debug!(%error, %client, "a connection failed");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut packet, mut out) = (Vec::new(), Vec::new());
    loop {
        let Ok(read) = timeout(IDLE, receive(&mut stream, &mut packet)).await else { return Ok(()) };
        if !read? {
            return Ok(());
        }
        match server.begin(&packet, Transport::Tcp, &mut out) {
            Step::Silence => return Ok(()),
            Step::Reply => {}
            Step::Later(pending) => out = server.finish(*pending).await,
        }
        let length = u16::try_from(out.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &out].concat();
        match timeout(IDLE, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
}

/// One request; false when the client is done.
async fn receive(stream: &mut TcpStream, packet: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > LARGEST_REQUEST {
        return Err(io::Error::other("the request is too large"));
    }
    packet.resize(length, 0);
    stream.read_exact(packet).await?;
    Ok(true)
}

/// The semaphore of [`serve_datagrams`], shared by all its tasks.
pub(super) fn waiting() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WAITING))
}
