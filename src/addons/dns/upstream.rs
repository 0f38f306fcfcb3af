//! One other name server: a question put to it, and whether it is worth asking.

use super::{message::DATAGRAM, packet};
use parking_lot::Mutex;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A server that does not answer is left alone this long.
const REST: Duration = Duration::from_secs(5);
/// A server that answers nothing else still says at once who serves the root.
const PROBE: &[u8] = &[0, 0, 2, 0, 1];
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// The client's side of a question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// Name, type and class, as the client spelt them.
    pub(super) question: &'a [u8],
    pub(super) checking_disabled: bool,
    /// Whether the client has EDNS, and if so whether it wants signatures.
    pub(super) edns: Option<bool>,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    resting: Mutex<Option<Instant>>,
}

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, resting: Mutex::new(None) }
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting.lock().is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn rest(&self) {
        *self.resting.lock() = Some(Instant::now() + REST);
    }

    /// Wakes a resting server if it answers anything: perhaps it only had nothing to say to one question.
    pub(super) async fn probe(&self) {
        let ask = Ask { question: PROBE, checking_disabled: false, edns: None };
        if let Ok(Ok(_)) = timeout(PROBE_PATIENCE, self.over_udp(ask)).await {
            *self.resting.lock() = None;
        }
    }

    /// Asks over UDP, and over TCP when the answer does not fit. Has no end of its own when nothing comes back.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> io::Result<Vec<u8>> {
        let reply = self.over_udp(ask).await?;
        if packet::is_truncated(&reply) {
            // A part of the answer is better than none.
            return Ok(self.over_tcp(ask).await.unwrap_or(reply));
        }
        Ok(reply)
    }

    /// A socket and an id for each question: whoever wants to forge an answer has to guess both.
    async fn over_udp(&self, ask: Ask<'_>) -> io::Result<Vec<u8>> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.address).await?;
        let request = packet::request(rand::random(), ask.question, ask.checking_disabled, ask.edns);
        socket.send(&request).await?;
        let mut reply = vec![0; usize::from(DATAGRAM)];
        loop {
            let length = socket.recv(&mut reply).await?;
            let got = reply.get(..length).unwrap_or_default();
            if answers(got, &request) {
                reply.truncate(length);
                return Ok(reply);
            }
        }
    }

    async fn over_tcp(&self, ask: Ask<'_>) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = packet::request(rand::random(), ask.question, ask.checking_disabled, ask.edns);
        let length = u16::try_from(request.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &request].concat()).await?;
        let mut reply = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut reply).await?;
        if answers(&reply, &request) { Ok(reply) } else { Err(io::Error::other("the answer is to another question")) }
    }
}

/// True for the reply to just this request.
fn answers(reply: &[u8], request: &[u8]) -> bool {
    let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    is_reply && reply.get(..2) == request.get(..2) && packet::same_question(reply, request)
}
