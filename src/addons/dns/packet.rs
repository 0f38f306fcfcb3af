//! Messages as bytes, for what is only passed on: the question, record lives, identity.
//!
//! Replies of other servers are passed on as they came, so that a record type nobody here knows passes too.

/// Length of the header.
const HEADER: usize = 12;
const SOA: u16 = 6;
const OPT: u16 = 41;

pub(super) const TRUNCATED: u8 = 0x02;
const NO_ERROR: u8 = 0;
pub(super) const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

/// The first question: name, type and class; nothing when it is not whole or its name is compressed.
pub(super) fn question(packet: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match packet.get(at)? {
            0 => return packet.get(HEADER..at + 5),
            length @ 1..=63 => at += 1 + usize::from(*length),
            _ => return None,
        }
    }
}

/// True when both ask the same; names are alike in any case.
pub(super) fn same_question(one: &[u8], other: &[u8]) -> bool {
    match (question(one), question(other)) {
        (Some(one), Some(other)) => lower(one) == lower(other),
        _ => false,
    }
}

/// A question with its name in lower case. Type and class follow the name and are no letters, even where they look so.
pub(super) fn lower(question: &[u8]) -> Vec<u8> {
    let mut lower = question.to_vec();
    let name = lower.len().saturating_sub(4);
    lower.iter_mut().take(name).for_each(u8::make_ascii_lowercase);
    lower
}

/// The reply's code, without what EDNS adds.
pub(super) fn code(packet: &[u8]) -> u8 {
    packet.get(3).map_or(SERVER_FAILURE, |flags| flags & 0xf)
}

pub(super) fn is_truncated(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Turns a reply to another request into the reply to this one: its id, its flags, and its spelling of the name.
pub(super) fn readdress(reply: &mut [u8], request: &[u8]) {
    if let (Some(to), Some(from)) = (reply.get_mut(..2), request.get(..2)) {
        to.copy_from_slice(from);
    }
    // Recursion desired, checking disabled.
    for (at, mask) in [(2, 0x01), (3, 0x10)] {
        if let (Some(to), Some(from)) = (reply.get_mut(at), request.get(at)) {
            *to = (*to & !mask) | (from & mask);
        }
    }
    if let Some(asked) = question(request)
        && let Some(to) = reply.get_mut(HEADER..HEADER + asked.len())
    {
        to.copy_from_slice(asked);
    }
}

/// Where one record lies.
struct Place {
    section: usize,
    kind: u16,
    ttl: usize,
    end: usize,
}

/// All records; ends early when the message is not whole.
fn records(packet: &[u8]) -> impl Iterator<Item = Place> {
    let count = |at: usize| u16_at(packet, at).unwrap_or_default();
    let sections = [count(6), count(8), count(10)];
    let mut at = (count(4) == 1).then(|| question(packet).map(|question| HEADER + question.len())).flatten();
    let sections = sections.into_iter().enumerate();
    sections.flat_map(|(section, count)| std::iter::repeat_n(section, usize::from(count))).map_while(move |section| {
        let name_end = skip_name(packet, at?)?;
        let end = name_end + 10 + usize::from(u16_at(packet, name_end + 8)?);
        at = (end <= packet.len()).then_some(end);
        at.and_then(|end| Some(Place { section, kind: u16_at(packet, name_end)?, ttl: name_end + 4, end }))
    })
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// For how many seconds a reply may be kept; not at all when it is a failure, cut, or negative without saying so.
pub(super) fn lifetime(packet: &[u8]) -> Option<u32> {
    let positive = match code(packet) {
        NO_ERROR => u16_at(packet, 6)? > 0,
        NAME_ERROR => false,
        _ => return None,
    };
    if is_truncated(packet) {
        return None;
    }
    let mut records = records(packet).filter(|record| record.kind != OPT);
    if positive {
        return records.filter_map(|record| u32_at(packet, record.ttl)).min();
    }
    // RFC 2308: the lesser of the SOA's own life and the minimum it states, its last field.
    let soa = records.find(|record| record.section == 1 && record.kind == SOA)?;
    Some(u32_at(packet, soa.ttl)?.min(u32_at(packet, soa.end.checked_sub(4)?)?))
}

/// Takes some seconds off the life of each record.
pub(super) fn age(packet: &mut [u8], seconds: u32) {
    let lives: Vec<usize> = records(packet).filter(|record| record.kind != OPT).map(|record| record.ttl).collect();
    for at in lives {
        if let Some(left) = u32_at(packet, at).map(|ttl| ttl.saturating_sub(seconds))
            && let Some(place) = packet.get_mut(at..at + 4)
        {
            place.copy_from_slice(&left.to_be_bytes());
        }
    }
}

/// Leaves the header and the question, marked as truncated.
pub(super) fn truncate(packet: &mut Vec<u8>) {
    let Some(length) = question(packet).map(|question| HEADER + question.len()) else { return };
    packet.truncate(length);
    if let Some(flags) = packet.get_mut(2) {
        *flags |= TRUNCATED;
    }
    if let Some(counts) = packet.get_mut(6..HEADER) {
        counts.fill(0);
    }
}

/// A request for another server: the same question, recursion desired, with EDNS if the client has it.
pub(super) fn request(id: u16, question: &[u8], checking_disabled: bool, edns: Option<bool>) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + question.len() + 11);
    packet.extend(id.to_be_bytes());
    packet.extend([0x01, if checking_disabled { 0x10 } else { 0 }, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())]);
    packet.extend(question);
    if let Some(dnssec) = edns {
        let [high, low] = super::message::DATAGRAM.to_be_bytes();
        packet.extend([0, 0, 41, high, low, 0, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::SOA as Soa;
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use std::net::Ipv4Addr;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn reply(ttls: &[u32]) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(name("www.Example.org."), RecordType::A));
        for ttl in ttls {
            let address = RData::A(Ipv4Addr::LOCALHOST.into());
            message.add_answer(Record::from_rdata(name("www.Example.org."), *ttl, address));
        }
        message
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let data = Soa::new(name("ns.example.org."), name("root.example.org."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("example.org."), ttl, RData::SOA(data))
    }

    #[test]
    fn replies_live_as_long_as_their_shortest_record() {
        assert_eq!(lifetime(&reply(&[300, 20, 60]).to_vec().unwrap()), Some(20));
        let mut missing = reply(&[]);
        missing.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(lifetime(&missing.to_vec().unwrap()), None);
        missing.add_authority(soa(900, 40));
        assert_eq!(lifetime(&missing.to_vec().unwrap()), Some(40));
        let mut cut = reply(&[300]);
        cut.metadata.truncation = true;
        assert_eq!(lifetime(&cut.to_vec().unwrap()), None);
        let mut failed = reply(&[]);
        failed.metadata.response_code = ResponseCode::ServFail;
        assert_eq!(lifetime(&failed.to_vec().unwrap()), None);
    }

    #[test]
    fn replies_age_and_change_their_address() {
        let mut packet = reply(&[300, 20]).to_vec().unwrap();
        age(&mut packet, 30);
        let request = request(99, question(&reply(&[]).to_vec().unwrap()).unwrap(), true, Some(true));
        let request = {
            let upper = String::from_utf8_lossy(&request).to_uppercase();
            assert!(upper.contains("EXAMPLE"));
            let mut request = request;
            request[13..16].copy_from_slice(b"WwW");
            request
        };
        readdress(&mut packet, &request);
        let message = Message::from_vec(&packet).unwrap();
        assert_eq!(message.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [270, 0]);
        assert_eq!((message.metadata.id, message.metadata.checking_disabled), (99, true));
        assert_eq!(message.queries[0].name().to_string(), "WwW.Example.org.");
        assert!(same_question(&packet, &request));
        let asked = Message::from_vec(&request).unwrap();
        assert!(asked.edns.unwrap().flags().dnssec_ok);
    }

    #[test]
    fn a_cut_reply_keeps_its_question() {
        let mut packet = reply(&[300; 40]).to_vec().unwrap();
        truncate(&mut packet);
        let message = Message::from_vec(&packet).unwrap();
        assert!(message.metadata.truncation && message.answers.is_empty());
        assert_eq!(message.queries.len(), 1);
    }

    #[test]
    fn broken_packets_do_no_harm() {
        let whole = reply(&[300, 20]).to_vec().unwrap();
        for length in 0..whole.len() {
            let mut part = whole[..length].to_vec();
            lifetime(&part);
            age(&mut part, 5);
            readdress(&mut part, &whole);
            truncate(&mut part);
        }
        for byte in 0..whole.len() {
            for value in [0, 63, 64, 192, 255] {
                let mut odd = whole.clone();
                odd[byte] = value;
                lifetime(&odd);
                age(&mut odd, 5);
                truncate(&mut odd);
            }
        }
    }
}
