//! The answer to one question, from the index: Kubernetes' DNS-Based Service Discovery, version 1.1.0.
//!
//! Where the specification leaves a choice it is as CoreDNS does. No IO; what must be asked elsewhere is said.

use super::index::Index;
use super::names::{Names, undashed};
use super::zone::Zone;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::seq::SliceRandom;
use std::net::IpAddr;

/// The version of the specification, told by the name `dns-version`.
const VERSION: &str = "1.1.0";
/// Aliases that lead to aliases are followed this far.
const ALIASES: usize = 8;
/// Where the name server's own name points.
pub(super) const OWN: (&str, &str) = ("kube-system", "kube-dns");

#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// The name outside the zone that the last answer points to, still to be asked.
    pub(super) chase: Option<Name>,
}

/// What is at a name.
#[derive(Default)]
struct Found {
    data: Vec<RData>,
    additionals: Vec<Record>,
    alias: Option<Name>,
}

/// Answers what is ours to answer; `None` is for other servers.
pub(super) fn answer(zone: &Zone, index: &Index, query: &Query) -> Option<Reply> {
    let mut reply = Reply::default();
    let mut name = query.name().clone();
    for _ in 0..ALIASES {
        let lower = name.to_lowercase();
        // What is not text is no name of ours.
        let labels: Vec<&str> = lower.iter().map(|label| std::str::from_utf8(label).unwrap_or("\u{fffd}")).collect();
        let found = match zone.below(&labels) {
            Some(below) => find(zone, index, below, query.query_type()),
            None if reply.answers.is_empty() => Some(back(zone, index, &labels, query.query_type())?),
            None => {
                reply.chase = Some(name);
                return Some(reply);
            }
        };
        let Some(found) = found else {
            reply.code = ResponseCode::NXDomain;
            break;
        };
        reply.additionals = found.additionals;
        let Some(alias) = found.alias else {
            reply.answers.extend(found.data.into_iter().map(|data| zone.record(name.clone(), data)));
            break;
        };
        reply.answers.push(zone.record(name, RData::CNAME(CNAME(alias.clone()))));
        if query.query_type() == RecordType::CNAME {
            break;
        }
        name = alias;
    }
    let negative = reply.code == ResponseCode::NXDomain || reply.answers.is_empty();
    if negative {
        reply.authorities.push(zone.record(zone.name.clone(), zone.soa(index.serial())));
    }
    Some(reply)
}

/// What is at a name of the zone, of the type asked; `None` when there is no such name.
fn find(zone: &Zone, index: &Index, below: &[&str], asked: RecordType) -> Option<Found> {
    match below {
        [] => Some(Found::of(match asked {
            RecordType::SOA => vec![zone.soa(index.serial())],
            RecordType::NS => vec![zone.ns()],
            _ => Vec::new(),
        })),
        ["dns-version"] if asked == RecordType::TXT => {
            Some(Found::of(vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))]))
        }
        ["dns-version" | "dns" | "svc" | "pod"] => Some(Found::default()),
        ["ns", "dns"] => {
            Some(Found::of(index.names(OWN.0, OWN.1).map_or(Vec::new(), |own| addresses(&own.addresses, asked))))
        }
        [rest @ .., namespace, "svc"] if index.has_namespace(namespace) => service(zone, index, namespace, rest, asked),
        [namespace, "pod"] if index.has_namespace(namespace) => Some(Found::default()),
        [pod, namespace, "pod"] if index.has_namespace(namespace) => {
            Some(Found::of(addresses(&[undashed(pod)?], asked)))
        }
        _ => None,
    }
}

/// What is at a name below a namespace.
fn service(zone: &Zone, index: &Index, namespace: &str, rest: &[&str], asked: RecordType) -> Option<Found> {
    let [before @ .., service] = rest else { return Some(Found::default()) };
    let names = index.names(namespace, service)?;
    let targets = |port: Option<&str>, protocol: &str| -> Found {
        let chosen = names.targets.iter().filter(|target| {
            port.is_none_or(|port| target.port == port) && (protocol.is_empty() || target.protocol == protocol)
        });
        let hosts: Vec<(Option<&str>, u16)> = chosen.map(|target| (target.host.as_deref(), target.number)).collect();
        targets_at(zone, names, (namespace, service), hosts)
    };
    match before {
        [] if names.alias.is_some() => {
            let alias = names.alias.as_deref().unwrap_or_default();
            let alias = Name::from_ascii(format!("{}.", alias.trim_end_matches('.'))).ok()?;
            Some(Found { alias: Some(alias), ..Found::default() })
        }
        [] if asked == RecordType::SRV => Some(targets(None, "")),
        [] => Some(Found::of(addresses(&names.addresses, asked))),
        [protocol] if protocol.starts_with('_') => {
            let found = targets(None, protocol.trim_start_matches('_'));
            // It exists for the sake of the names below only.
            (!found.data.is_empty()).then(Found::default)
        }
        [host] => Some(Found::of(addresses(names.hosts.get(*host)?, asked))),
        [port, protocol] => {
            let found = targets(Some(port.strip_prefix('_')?), protocol.strip_prefix('_').filter(|p| !p.is_empty())?);
            let exists = !found.data.is_empty();
            exists.then(|| if asked == RecordType::SRV { found } else { Found::default() })
        }
        _ => None,
    }
}

/// SRV records to some hosts and ports of a Service, with the hosts' addresses beside them.
fn targets_at(
    zone: &Zone,
    names: &Names,
    (namespace, service): (&str, &str),
    mut hosts: Vec<(Option<&str>, u16)>,
) -> Found {
    hosts.shuffle(&mut rand::rng());
    let weight = u16::try_from(100 / hosts.len().max(1)).unwrap_or(1).max(1);
    let mut found = Found::default();
    let mut told: Vec<Option<&str>> = Vec::new();
    for (host, port) in hosts {
        let Some(target) = zone.service(namespace, service, host) else { continue };
        found.data.push(RData::SRV(SRV::new(0, weight, port, target.clone())));
        if !told.contains(&host) {
            told.push(host);
            let at = match host {
                Some(label) => names.hosts.get(label),
                None => Some(&names.addresses),
            };
            for address in at.into_iter().flatten() {
                found.additionals.push(zone.record(target.clone(), RData::from(*address)));
            }
        }
    }
    found
}

/// What an address leads back to; `None` when it is none of ours.
fn back(zone: &Zone, index: &Index, labels: &[&str], asked: RecordType) -> Option<Found> {
    let pointers = index.pointers(reversed(labels)?)?;
    let names = pointers.iter().filter_map(|p| zone.service(&p.namespace, &p.service, p.host.as_deref()));
    let data = names.map(|name| RData::PTR(PTR(name))).collect();
    Some(Found::of(if asked == RecordType::PTR { data } else { Vec::new() }))
}

/// The address that a name below `arpa` stands for.
fn reversed(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [d, c, b, a, "in-addr", "arpa"] => Some(IpAddr::V4(format!("{a}.{b}.{c}.{d}").parse().ok()?)),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            // A label of more than one digit makes it too long.
            let number = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16))?.ok()?;
            Some(IpAddr::V6(number.into()))
        }
        _ => None,
    }
}

/// The addresses of the family asked for, in a new order each time.
fn addresses(all: &[IpAddr], asked: RecordType) -> Vec<RData> {
    let wanted = all.iter().filter(|address| match asked {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        other => other == RecordType::ANY,
    });
    let mut data: Vec<RData> = wanted.map(|address| RData::from(*address)).collect();
    if data.len() > 1 {
        data.shuffle(&mut rand::rng());
    }
    data
}

impl Found {
    fn of(data: Vec<RData>) -> Self {
        Self { data, ..Self::default() }
    }
}
