//! Names and types, each with its answer: the examples of the specification, and what CoreDNS does beside it.

use super::answer::{Reply, answer};
use super::fixture::{cluster, slice, zone};
use super::index::Index;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::json;
use std::net::IpAddr;

fn ask(index: &Index, name: &str, kind: RecordType) -> Option<Reply> {
    answer(&zone(), index, &Query::query(Name::from_ascii(name).unwrap(), kind))
}

/// Records as text, in order, without owner names.
fn told(records: &[Record]) -> Vec<String> {
    let mut told: Vec<String> =
        records.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    told.sort();
    told
}

const NODATA: &[&str] = &[];

#[test]
fn names_have_the_records_they_should() {
    use RecordType::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
    let table: &[(&str, RecordType, &[&str])] = &[
        // Services with a cluster IP.
        ("web.default.svc.cluster.local.", A, &["A 10.0.0.1"]),
        ("web.default.svc.cluster.local.", AAAA, &["AAAA fd00::1"]),
        ("web.default.svc.cluster.local.", ANY, &["A 10.0.0.1", "AAAA fd00::1"]),
        ("web.default.svc.cluster.local.", TXT, NODATA),
        ("WEB.Default.SVC.cluster.LOCAL.", A, &["A 10.0.0.1"]),
        ("plain.default.svc.cluster.local.", A, &["A 10.0.0.2"]),
        ("plain.default.svc.cluster.local.", AAAA, NODATA),
        ("_http._tcp.web.default.svc.cluster.local.", SRV, &["SRV 0 100 80 web.default.svc.cluster.local."]),
        ("_http._tcp.web.default.svc.cluster.local.", A, NODATA),
        ("_tcp.web.default.svc.cluster.local.", SRV, NODATA),
        (
            "web.default.svc.cluster.local.",
            SRV,
            &["SRV 0 50 443 web.default.svc.cluster.local.", "SRV 0 50 80 web.default.svc.cluster.local."],
        ),
        // An endpoint of one has its dashed address as a name, as with CoreDNS.
        ("10-1-0-5.web.default.svc.cluster.local.", A, &["A 10.1.0.5"]),
        // Headless Services: the ready endpoints.
        ("db.default.svc.cluster.local.", A, &["A 10.1.0.6", "A 10.1.0.7"]),
        ("db.default.svc.cluster.local.", AAAA, &["AAAA fd01::6"]),
        ("db-0.db.default.svc.cluster.local.", A, &["A 10.1.0.6"]),
        ("db-0.db.default.svc.cluster.local.", AAAA, &["AAAA fd01::6"]),
        ("10-1-0-7.db.default.svc.cluster.local.", A, &["A 10.1.0.7"]),
        ("10-1-0-7.db.default.svc.cluster.local.", AAAA, NODATA),
        (
            "_db._tcp.db.default.svc.cluster.local.",
            SRV,
            &[
                "SRV 0 50 5432 10-1-0-7.db.default.svc.cluster.local.",
                "SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
            ],
        ),
        ("early-0.early.default.svc.cluster.local.", A, &["A 10.1.0.9"]),
        ("early.default.svc.cluster.local.", A, &["A 10.1.0.9"]),
        // Pods by address.
        ("10-1-0-6.default.pod.cluster.local.", A, &["A 10.1.0.6"]),
        ("172-12-0-3.default.pod.cluster.local.", A, &["A 172.12.0.3"]),
        ("172-12-0-3.default.pod.cluster.local.", AAAA, NODATA),
        ("fd00--1.default.pod.cluster.local.", AAAA, &["AAAA fd00::1"]),
        // Ways back.
        ("1.0.0.10.in-addr.arpa.", PTR, &["PTR web.default.svc.cluster.local."]),
        ("1.0.0.10.IN-ADDR.arpa.", PTR, &["PTR web.default.svc.cluster.local."]),
        ("1.0.0.10.in-addr.arpa.", A, NODATA),
        ("6.0.1.10.in-addr.arpa.", PTR, &["PTR db-0.db.default.svc.cluster.local."]),
        ("7.0.1.10.in-addr.arpa.", PTR, &["PTR 10-1-0-7.db.default.svc.cluster.local."]),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            &["PTR web.default.svc.cluster.local."],
        ),
        // Names of other names.
        ("nearby.default.svc.cluster.local.", A, &["A 10.0.0.1", "CNAME web.default.svc.cluster.local."]),
        ("nearby.default.svc.cluster.local.", CNAME, &["CNAME web.default.svc.cluster.local."]),
        ("elsewhere.default.svc.cluster.local.", CNAME, &["CNAME www.Example.org."]),
        // The zone itself.
        ("dns-version.cluster.local.", TXT, &["TXT 1.1.0"]),
        ("dns-version.cluster.local.", A, NODATA),
        ("cluster.local.", NS, &["NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", A, &["A 10.0.0.10"]),
        ("cluster.local.", A, NODATA),
        ("svc.cluster.local.", A, NODATA),
        ("pod.cluster.local.", A, NODATA),
        ("default.svc.cluster.local.", A, NODATA),
        ("empty.svc.cluster.local.", A, NODATA),
        ("default.pod.cluster.local.", A, NODATA),
    ];
    let index = cluster();
    for (name, kind, expected) in table {
        let reply = ask(&index, name, *kind).unwrap_or_else(|| panic!("{name} is ours"));
        assert_eq!(reply.code, ResponseCode::NoError, "{name} {kind}");
        assert_eq!(told(&reply.answers), *expected, "{name} {kind}");
        assert!(reply.chase.is_none(), "{name} {kind}");
        let soa = reply.authorities.iter().filter(|record| record.record_type() == SOA).count();
        assert_eq!(soa, usize::from(expected.is_empty()), "{name} {kind}");
        assert!(reply.answers.iter().chain(&reply.authorities).all(|record| record.ttl == 5));
    }
    let soa = ask(&index, "cluster.local.", SOA).unwrap();
    let told = soa.answers[0].data.to_string();
    assert!(
        told.starts_with("ns.dns.cluster.local. hostmaster.cluster.local. ") && told.ends_with(" 7200 1800 86400 5")
    );
}

#[test]
fn what_is_not_there_is_said_not_to_be() {
    let index = cluster();
    for name in [
        "nothing.default.svc.cluster.local.",
        "web.nowhere.svc.cluster.local.",
        "nowhere.svc.cluster.local.",
        "nowhere.pod.cluster.local.",
        "10-1-0-6.nowhere.pod.cluster.local.",
        "web.default.pod.cluster.local.",
        "10-1-0-999.default.pod.cluster.local.",
        "web.default.cluster.local.",
        "other.cluster.local.",
        // A headless Service without ready endpoints, and an endpoint that is not ready.
        "unready.default.svc.cluster.local.",
        "db-2.db.default.svc.cluster.local.",
        "10-1-0-99.db.default.svc.cluster.local.",
        "_ftp._tcp.web.default.svc.cluster.local.",
        "_http._udp.web.default.svc.cluster.local.",
        "_udp.web.default.svc.cluster.local.",
        "http.tcp.web.default.svc.cluster.local.",
        "__._tcp.web.default.svc.cluster.local.",
        "a.b.c.web.default.svc.cluster.local.",
        // Wildcards are names like others.
        "*.default.svc.cluster.local.",
        "web.*.svc.cluster.local.",
        "any.any.svc.cluster.local.",
        "address.default.svc.cluster.local.",
        // What search paths make of names of the world.
        "www.example.org.default.svc.cluster.local.",
        "www.example.org.svc.cluster.local.",
        "www.example.org.cluster.local.",
    ] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
            let reply = ask(&index, name, kind).unwrap();
            assert_eq!(reply.code, ResponseCode::NXDomain, "{name} {kind}");
            assert!(reply.answers.is_empty());
            assert_eq!(reply.authorities.len(), 1, "{name} {kind}");
            assert_eq!(reply.authorities[0].name.to_string(), "cluster.local.");
        }
    }
}

#[test]
fn the_rest_of_the_world_is_not_ours() {
    let index = cluster();
    for name in [
        "www.example.org.",
        "local.",
        ".",
        "xcluster.local.",
        "web.",
        "9.9.9.9.in-addr.arpa.",
        "1.0.10.in-addr.arpa.",
        "5.0.1.10.in-addr.arpa.",
    ] {
        assert!(ask(&index, name, RecordType::A).is_none(), "{name}");
        assert!(ask(&index, name, RecordType::PTR).is_none(), "{name}");
    }
}

#[test]
fn aliases_lead_out_of_the_zone_or_end() {
    let index = cluster();
    let reply = ask(&index, "elsewhere.default.svc.cluster.local.", RecordType::A).unwrap();
    assert_eq!(told(&reply.answers), ["CNAME www.Example.org."]);
    assert_eq!(reply.chase.unwrap().to_string(), "www.Example.org.");
    let reply = ask(&index, "round.default.svc.cluster.local.", RecordType::A).unwrap();
    assert!(reply.chase.is_none() && reply.answers.len() <= 8);
}

#[test]
fn services_bring_their_hosts_addresses() {
    let reply = ask(&cluster(), "_db._tcp.db.default.svc.cluster.local.", RecordType::SRV).unwrap();
    assert_eq!(told(&reply.additionals), ["A 10.1.0.6", "A 10.1.0.7", "AAAA fd01::6"]);
}

#[test]
fn addresses_come_in_any_order() {
    let mut index = cluster();
    let endpoints: Vec<_> = (1..=6).map(|n| json!({"addresses": [format!("10.2.0.{n}")]})).collect();
    slice(&mut index, "default", "db-c", "db", json!([]), json!(endpoints));
    let first = |_| ask(&index, "db.default.svc.cluster.local.", RecordType::A).unwrap().answers[0].data.to_string();
    let firsts: std::collections::HashSet<String> = (0..200).map(first).collect();
    assert_eq!(firsts.len(), 8);
}

#[test]
fn the_index_forgets_what_is_gone() {
    let mut index = cluster();
    let key = |name: &str| ("default".to_owned(), name.to_owned());
    let back = |index: &Index, ip: &str| index.pointers(ip.parse::<IpAddr>().unwrap()).map(<[_]>::len);
    let serial = index.serial();
    assert_eq!((back(&index, "10.1.0.6"), back(&index, "10.0.0.1")), (Some(1), Some(1)));
    index.set_slice(&key("db-a"), None);
    index.set_slice(&key("db-b"), None);
    index.set_service(&key("web"), None);
    assert_eq!((back(&index, "10.1.0.6"), back(&index, "10.0.0.1")), (None, None));
    for name in ["db", "web"] {
        let reply = ask(&index, &format!("{name}.default.svc.cluster.local."), RecordType::A).unwrap();
        assert_eq!(reply.code, ResponseCode::NXDomain);
    }
    assert!(index.serial() > serial);
    // A slice that comes to another Service leaves the first.
    slice(&mut index, "default", "early-a", "unready", json!([]), json!([{"addresses": ["10.1.0.9"]}]));
    let code = |name: &str| ask(&index, &format!("{name}.default.svc.cluster.local."), RecordType::A).unwrap().code;
    assert_eq!((code("early"), code("unready")), (ResponseCode::NXDomain, ResponseCode::NoError));
}
