//! Questions to a name server: as many as it answers, and some at a steady rate.

use crate::percentiles;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Dns {
    /// Where the server listens
    #[arg(long)]
    server: SocketAddr,
    /// What is asked, of type A; the answer must have a record
    #[arg(long, default_value = "kubernetes.default.svc.cluster.local")]
    name: String,
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Questions that each client has in flight
    #[arg(long, default_value_t = 32)]
    window: u16,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Questions a second in the steady part
    #[arg(long, default_value_t = 1000)]
    rate: u32,
}

/// A lost datagram is given up after this long.
const LOST: Duration = Duration::from_secs(1);

impl Dns {
    pub(crate) fn run(&self) -> anyhow::Result<Value> {
        let question = question(&self.name)?;
        let (answers, lost) = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients).map(|_| scope.spawn(|| self.flood(&question))).collect();
            let mut total = (0, 0);
            for client in clients {
                let (answers, lost) = client.join().map_err(|_| anyhow::anyhow!("a client failed"))??;
                total = (total.0 + answers, total.1 + lost);
            }
            anyhow::Ok(total)
        })?;
        let steady = self.steady(self.server, &question)?;
        let floor = self.steady(echo()?, &question)?;
        Ok(json!({"per_second": answers / self.seconds, "lost": lost, "steady": steady, "floor": floor}))
    }

    /// Keeps the window full; how many answers came, and how many did not.
    fn flood(&self, question: &[u8]) -> anyhow::Result<(u64, u64)> {
        let socket = connected(self.server)?;
        let (mut answers, mut lost, mut id) = (0, 0, 0_u16);
        let begun = Instant::now();
        let mut missing = self.window;
        let mut reply = [0; 1500];
        while begun.elapsed().as_secs() < self.seconds {
            for _ in 0..missing {
                id = id.wrapping_add(1);
                socket.send(&with_id(question, id))?;
            }
            match socket.recv(&mut reply) {
                Ok(length) => {
                    check(reply.get(..length).unwrap_or_default())?;
                    (answers, missing) = (answers + 1, 1);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    (lost, missing) = (lost + u64::from(self.window), self.window);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((answers, lost))
    }

    /// One question after the other in even steps, whether or not the last was answered.
    fn steady(&self, server: SocketAddr, question: &[u8]) -> anyhow::Result<Value> {
        let socket = connected(server)?;
        let step = Duration::from_secs(1) / self.rate.max(1);
        let count = u16::try_from(u64::from(self.rate) * self.seconds).unwrap_or(u16::MAX);
        let begun = Instant::now();
        let due = |id: u16| begun + step * u32::from(id);
        let took = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut took = Vec::new();
                let mut reply = [0; 1500];
                while took.len() < usize::from(count) {
                    let Ok(length) = socket.recv(&mut reply) else { break };
                    let reply = reply.get(..length).unwrap_or_default();
                    check(reply)?;
                    let id = reply.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
                    // From when it was due: a sender that is late does not flatter the server.
                    took.push(due(id).elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok(took)
            });
            for id in 0..count {
                std::thread::sleep(due(id).saturating_duration_since(Instant::now()));
                socket.send(&with_id(question, id))?;
            }
            receiver.join().map_err(|_| anyhow::anyhow!("the receiver failed"))?
        })?;
        let lost = usize::from(count) - took.len();
        let mut steady = percentiles(took);
        steady["lost"] = json!(lost);
        Ok(steady)
    }
}

fn connected(server: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any = if server.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(LOST))?;
    Ok(socket)
}

/// The floor: a thread that sends each question back as its own answer, until the program ends.
fn echo() -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            // One answer, or so it says.
            packet[7] = 1;
            if socket.send_to(packet.get(..length).unwrap_or_default(), from).is_err() {
                break;
            }
        }
    });
    Ok(address)
}

/// A request whose id is still to be filled in.
fn question(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        packet.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length)).context("no name")?);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    Ok(packet)
}

fn with_id(question: &[u8], id: u16) -> Vec<u8> {
    let mut packet = question.to_vec();
    packet.splice(..2, id.to_be_bytes());
    packet
}

/// No error, and at least one answer.
fn check(reply: &[u8]) -> anyhow::Result<()> {
    let code = reply.get(3).map(|flags| flags & 0xf);
    let answers = reply.get(6..8);
    ensure!(code == Some(0) && answers.is_some_and(|count| count != [0, 0]), "not an answer: code {code:?}");
    Ok(())
}
