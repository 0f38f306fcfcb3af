//! The server over real sockets, and the servers it forwards to.

use super::fixture::{cluster, service, slice, zone};
use super::forward::Forwarders;
use super::listen;
use super::metrics::Metrics;
use super::server::Server;
use super::watch::Shared;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server of the test cluster, extended by a large headless Service; where it listens.
async fn start(forwarders: Vec<SocketAddr>) -> SocketAddr {
    let mut index = cluster();
    service(&mut index, "default", "large", json!({"clusterIP": "None"}));
    let endpoints: Vec<_> = (1..=120).map(|n| json!({"addresses": [format!("10.3.0.{n}")]})).collect();
    slice(&mut index, "default", "large-a", "large", json!([]), json!(endpoints));
    start_with(Shared::complete(index), forwarders).await
}

async fn start_with(index: Arc<Shared>, forwarders: Vec<SocketAddr>) -> SocketAddr {
    serve(server_with(index, &forwarders)).await
}

fn server_with(index: Arc<Shared>, forwarders: &[SocketAddr]) -> Arc<Server> {
    let forwarders = Forwarders::new(forwarders);
    Arc::new(Server { zone: zone(), index, forwarders, metrics: Metrics::default() })
}

async fn serve(server: Arc<Server>) -> SocketAddr {
    let first = listen::datagrams(ANY_PORT).unwrap();
    let address = first.local_addr().unwrap();
    let waiting = listen::waiting();
    for socket in [first, listen::datagrams(address).unwrap()] {
        tokio::spawn(listen::serve_datagrams(server.clone(), Arc::new(socket), waiting.clone()));
    }
    tokio::spawn(listen::serve_connections(server, TcpListener::bind(address).await.unwrap()));
    address
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(server: SocketAddr, request: &[u8]) -> Message {
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    socket.send_to(request, server).await.unwrap();
    let mut reply = vec![0; 65536];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut reply)).await.expect("a reply").unwrap();
    Message::from_vec(&reply[..length]).unwrap()
}

async fn ask(server: SocketAddr, request: &Message) -> Message {
    let reply = over_udp(server, &request.to_vec().unwrap()).await;
    assert_eq!(reply.metadata.id, request.metadata.id);
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    reply
}

async fn over_tcp(server: SocketAddr, requests: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    for request in requests {
        let bytes = request.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    let mut replies = Vec::new();
    for _ in requests {
        let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut reply).await.unwrap();
        replies.push(Message::from_vec(&reply).unwrap());
    }
    replies
}

#[tokio::test]
async fn names_are_answered_over_both_transports() {
    let server = start(vec![]).await;
    let request = query("wEb.default.svc.cluster.local.", RecordType::A);
    let reply = ask(server, &request).await;
    assert!(reply.metadata.authoritative && reply.metadata.recursion_desired && !reply.metadata.recursion_available);
    assert_eq!(reply.queries[0].name().to_string(), "wEb.default.svc.cluster.local.");
    assert_eq!(reply.answers[0].data.to_string(), "10.0.0.1");
    assert!(reply.edns.is_none());
    let missing = query("no.default.svc.cluster.local.", RecordType::A);
    let replies = over_tcp(server, &[request, missing]).await;
    assert_eq!(replies[0].answers.len(), 1);
    assert_eq!(replies[1].metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_had_over_tcp() {
    let server = start(vec![]).await;
    let mut request = query("large.default.svc.cluster.local.", RecordType::A);
    let reply = ask(server, &request).await;
    assert!(reply.metadata.truncation);
    assert!((20..40).contains(&reply.answers.len()), "{}", reply.answers.len());
    assert!(reply.to_vec().unwrap().len() <= 512);

    // With EDNS more fits, though no more than crosses any network in one piece.
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    request.set_edns(edns);
    let reply = ask(server, &request).await;
    assert!(reply.metadata.truncation && reply.edns.is_some());
    assert!((60..80).contains(&reply.answers.len()), "{}", reply.answers.len());
    assert!(reply.to_vec().unwrap().len() <= 1232);

    let replies = over_tcp(server, &[request]).await;
    assert!(!replies[0].metadata.truncation);
    assert_eq!(replies[0].answers.len(), 120);
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let server = start(vec![]).await;
    let name = "web.default.svc.cluster.local.";
    let mut two = query(name, RecordType::A);
    two.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::AAAA));
    let mut none = query(name, RecordType::A);
    none.queries.clear();
    let mut notify = query(name, RecordType::A);
    notify.metadata.op_code = OpCode::Notify;
    let mut chaos = query(name, RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut next = query(name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    next.set_edns(edns);
    for (request, code) in [
        (two, ResponseCode::FormErr),
        (none, ResponseCode::FormErr),
        (notify, ResponseCode::NotImp),
        (chaos, ResponseCode::Refused),
        (next, ResponseCode::BADVERS),
        (query("cluster.local.", RecordType::AXFR), ResponseCode::Refused),
    ] {
        // By number, as one number has two names.
        assert_eq!(u16::from(ask(server, &request).await.metadata.response_code), u16::from(code));
    }
    // Noise gets no answer, and does no harm.
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    let mut reply = query(name, RecordType::A);
    reply.metadata.message_type = MessageType::Response;
    for noise in [&b""[..], b"hello", &reply.to_vec().unwrap()] {
        socket.send_to(noise, server).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(100), socket.recv(&mut [0; 512])).await.is_err());
    let mut broken = query(name, RecordType::A).to_vec().unwrap();
    broken.truncate(20);
    assert_eq!(over_udp(server, &broken).await.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(ask(server, &query(name, RecordType::A)).await.answers.len(), 1);
}

#[tokio::test]
async fn nothing_is_missing_before_everything_is_listed() {
    let server = start_with(Arc::default(), vec![]).await;
    let reply = ask(server, &query("web.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn without_forwarders_the_world_fails_at_once() {
    let server = start(vec![]).await;
    let begun = Instant::now();
    let reply = ask(server, &query("www.example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_millis(200));
    // An alias that leads there is told as it is.
    let reply = ask(server, &query("elsewhere.default.svc.cluster.local.", RecordType::A)).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 1));
}

/// Another name server: over UDP it cuts `large.`, fails `lame.`, does not know `missing.`, and is silent about `silent.`.
struct World {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl World {
    async fn start() -> Self {
        let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut packet = vec![0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                count.fetch_add(1, Ordering::SeqCst);
                let request = Message::from_vec(&packet[..length]).unwrap();
                let Some(mut reply) = Self::reply(&request) else { continue };
                if reply.answers.len() > 30 {
                    reply = reply.truncate();
                }
                // What others could send is not taken for the answer.
                let mut forged = reply.clone();
                forged.metadata.id ^= 1;
                forged.answers.clear();
                socket.send_to(&forged.to_vec().unwrap(), client).await.unwrap();
                socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut packet).await.unwrap();
                let reply = Self::reply(&Message::from_vec(&packet).unwrap()).unwrap().to_vec().unwrap();
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        });
        Self { address, asked }
    }

    fn reply(request: &Message) -> Option<Message> {
        let mut reply = Message::response(request.metadata.id, OpCode::Query);
        reply.queries.clone_from(&request.queries);
        let name = request.queries[0].name().clone();
        let mut add = |count: u8| {
            for n in 1..=count {
                reply.add_answer(Record::from_rdata(name.clone(), 60, RData::A(Ipv4Addr::new(192, 0, 2, n).into())));
            }
        };
        match name.to_string().to_lowercase().as_str() {
            "silent." => return None,
            "lame." => reply.metadata.response_code = ResponseCode::ServFail,
            "large." => add(100),
            "missing." => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 60);
                reply.add_authority(Record::from_rdata(Name::root(), 60, RData::SOA(soa)));
            }
            _ => add(1),
        }
        Some(reply)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An address that takes questions and never answers.
async fn grave() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn the_world_is_asked_once_and_remembered() {
    let world = World::start().await;
    let server = start(vec![world.address]).await;
    for name in ["www.example.org.", "WWW.example.org."] {
        let reply = ask(server, &query(name, RecordType::A)).await;
        assert_eq!(reply.queries[0].name().to_string(), name);
        assert_eq!(reply.answers[0].data.to_string(), "192.0.2.1");
        assert!(!reply.metadata.authoritative);
    }
    assert_eq!(world.asked(), 1);
    for _ in 0..2 {
        let reply = ask(server, &query("missing.", RecordType::A)).await;
        assert_eq!((reply.metadata.response_code, reply.authorities.len()), (ResponseCode::NXDomain, 1));
    }
    assert_eq!(world.asked(), 2);
    // Another type is another question; so is one with EDNS, whose answer has EDNS too.
    ask(server, &query("www.example.org.", RecordType::AAAA)).await;
    let mut request = query("www.example.org.", RecordType::A);
    request.set_edns(Edns::new());
    ask(server, &request).await;
    assert_eq!(world.asked(), 4);
}

#[tokio::test]
async fn a_cut_answer_is_had_over_tcp() {
    let world = World::start().await;
    let server = start(vec![world.address]).await;
    let request = query("large.", RecordType::A);
    let replies = over_tcp(server, std::slice::from_ref(&request)).await;
    assert_eq!(replies[0].answers.len(), 100);
    assert!(ask(server, &request).await.metadata.truncation);
}

#[tokio::test]
async fn aliases_are_followed_into_the_world() {
    let world = World::start().await;
    let server = start(vec![world.address]).await;
    let reply = ask(server, &query("elsewhere.default.svc.cluster.local.", RecordType::A)).await;
    let told: Vec<String> = reply.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(told, ["elsewhere.default.svc.cluster.local. www.Example.org.", "www.Example.org. 192.0.2.1"]);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails_or_is_silent() {
    let (_socket, silent) = grave().await;
    let closed = grave().await.1;
    let world = World::start().await;
    for first in [silent, closed] {
        let server = start(vec![first, world.address]).await;
        let begun = Instant::now();
        let reply = ask(server, &query("www.example.org.", RecordType::A)).await;
        assert_eq!(reply.answers.len(), 1);
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    let server = start(vec![world.address]).await;
    let reply = ask(server, &query("lame.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn dead_servers_cost_one_wait_and_then_none() {
    let (_socket, dead) = grave().await;
    let server = start(vec![dead]).await;
    let ask = async |name: &str| {
        let begun = Instant::now();
        let reply = ask(server, &query(name, RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        begun.elapsed()
    };
    let first = ask("one.example.org.").await;
    assert!(first < Duration::from_secs(2), "{first:?}");
    let second = ask("two.example.org.").await;
    assert!(second < Duration::from_millis(100), "{second:?}");
}

#[tokio::test]
async fn a_server_silent_about_one_name_is_not_given_up() {
    let world = World::start().await;
    let server = start(vec![world.address]).await;
    let reply = ask(server, &query("silent.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ask(server, &query("www.example.org.", RecordType::A)).await.answers.len(), 1);
}

#[tokio::test]
async fn the_servers_own_address_is_not_asked() {
    // The test cluster's own DNS service; nothing is sent to it, so this fails at once.
    let server = start(vec!["10.0.0.10:53".parse().unwrap()]).await;
    let begun = Instant::now();
    let reply = ask(server, &query("www.example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn other_servers_are_asked_when_the_network_changes() {
    let (_socket, dead) = grave().await;
    let (home, cafe) = (World::start().await, World::start().await);
    let server = server_with(Shared::complete(cluster()), &[]);
    let address = serve(server.clone()).await;
    let request = query("www.example.org.", RecordType::A);
    let code = async || ask(address, &request).await.metadata.response_code;
    assert_eq!(code().await, ResponseCode::ServFail);
    // The same servers again change nothing: what they said is still known.
    for (changed, world) in [(true, &home), (false, &home), (true, &cafe), (true, &home)] {
        let before = world.asked();
        assert_eq!(server.forwarders.set(&[world.address]), changed);
        assert_eq!(code().await, ResponseCode::NoError);
        assert_eq!(world.asked() - before, usize::from(changed));
    }
    // A silent server that rests is forgotten with its network.
    server.forwarders.set(&[dead]);
    assert_eq!(code().await, ResponseCode::ServFail);
    server.forwarders.set(&[cafe.address]);
    assert_eq!(code().await, ResponseCode::NoError);
    server.forwarders.set(&[]);
    assert_eq!(code().await, ResponseCode::ServFail);
}
