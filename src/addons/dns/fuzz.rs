//! Mutated packets: requests of pods, and replies of other servers.

use super::fixture::{cluster, zone};
use super::forward::Forwarders;
use super::message::{DATAGRAM, Transport};
use super::metrics::Metrics;
use super::packet;
use super::resolv_conf;
use super::server::{Server, Step};
use super::watch::Shared;
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};

fn requests() -> Vec<Vec<u8>> {
    let names = [
        "web.default.svc.cluster.local.",
        "_http._tcp.web.default.svc.cluster.local.",
        "5.0.1.10.in-addr.arpa.",
        "db.default.svc.cluster.local.",
    ];
    let kinds = [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY];
    let all = names.iter().zip(kinds).map(|(name, kind)| {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.edns = (kind == RecordType::SRV).then(Edns::new);
        message.to_vec().unwrap()
    });
    all.collect()
}

#[test]
fn requests_are_answered_whole_or_not() {
    let server = Server {
        zone: zone(),
        index: Shared::complete(cluster()),
        forwarders: Forwarders::default(),
        metrics: Metrics::default(),
    };
    let corpus = requests();
    let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    mini_fuzz::run(
        &corpus,
        &["\x03web", "\x07cluster\x05local", "\u{0}", "\x3f", "\x01*", "\x07default\x03svc"],
        |input| {
            let mut codes = Vec::new();
            for transport in [Transport::Udp, Transport::Tcp] {
                let mut out = Vec::new();
                let step = server.begin(input, transport, &mut out);
                if matches!(step, Step::Reply) {
                    let reply = Message::from_vec(&out).expect("a reply is a message");
                    assert_eq!(out.first_chunk::<2>(), input.first_chunk::<2>(), "the request's id");
                    assert!(transport == Transport::Tcp || out.len() <= usize::from(DATAGRAM), "{} bytes", out.len());
                    codes.push((u16::from(reply.metadata.response_code), reply.answers.len().min(3)));
                }
            }
            codes
        },
    );
}

#[test]
fn replies_of_others_are_passed_on() {
    let request = requests().remove(0);
    let mut message = Message::from_vec(&request).unwrap();
    for ttl in [300, 20] {
        let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
        message.add_answer(Record::from_rdata(name, ttl, RData::A(rdata::A::new(10, 0, 0, 1))));
    }
    let reply = message.to_vec().unwrap();
    mini_fuzz::run(&[&reply], &["\u{0}", "\x3f", "\x0c"], |input| {
        let lifetime = packet::lifetime(input);
        let mut passed = input.to_vec();
        packet::age(&mut passed, 5);
        packet::readdress(&mut passed, &request);
        assert_eq!(passed.len(), input.len());
        let _ = (packet::same_question(input, &request), packet::code(input), packet::is_truncated(input));
        packet::truncate(&mut passed);
        assert!(passed.len() <= input.len());
        (lifetime.is_some(), packet::question(input).is_some())
    });
    mini_fuzz::run(
        &[b"nameserver 10.0.0.1\nsearch a b\noptions ndots:5\n"],
        &["nameserver ", "::1", "%eth0", "\t"],
        |input| {
            let text = String::from_utf8_lossy(input);
            (resolv_conf::servers(&text).len(), resolv_conf::address(&text).is_ok())
        },
    );
}
