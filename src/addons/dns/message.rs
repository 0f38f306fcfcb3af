//! Requests read and replies written: which requests are refused, sizes and truncation, EDNS.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// The largest datagram sent, and the largest asked for: what crosses any network in one piece.
pub(super) const DATAGRAM: u16 = 1232;
/// The largest datagram to a client that does not say what it takes.
const PLAIN_DATAGRAM: u16 = 512;
/// An OPT record without options.
const OPT_LEN: u16 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What to do with a packet that came in.
#[derive(Debug)]
pub(super) enum Request {
    /// One question of the Internet class.
    Question(Box<Message>),
    /// To be refused with this.
    Refused(Box<Message>),
    /// Not a request; whoever sent it waits for nothing.
    Noise,
}

/// Reads a packet.
pub(super) fn read(packet: &[u8]) -> Request {
    let Some([id0, id1, flags, _, count0, count1]) = packet.first_chunk().filter(|_| packet.len() >= 12) else {
        return Request::Noise;
    };
    if flags & 0x80 != 0 {
        return Request::Noise;
    }
    let id = u16::from_be_bytes([*id0, *id1]);
    let op_code = OpCode::from_u8((flags >> 3) & 0xf);
    let refuse = |code| Request::Refused(Box::new(Message::error_msg(id, op_code, code)));
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // Before anything is set aside for as many questions as the packet claims to have.
    if u16::from_be_bytes([*count0, *count1]) != 1 {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(request) = Message::from_vec(packet) else { return refuse(ResponseCode::FormErr) };
    let Some(query) = request.queries.first() else { return refuse(ResponseCode::FormErr) };
    let refusal = if request.version() > 0 {
        Some(ResponseCode::BADVERS)
    } else if query.query_class() != DNSClass::IN || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
        Some(ResponseCode::Refused)
    } else {
        None
    };
    match refusal {
        Some(code) => Request::Refused(Box::new(reply_to(&request, code))),
        None => Request::Question(Box::new(request)),
    }
}

/// An empty reply.
pub(super) fn reply_to(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata = Metadata::response_from_request(&request.metadata);
    reply.metadata.response_code = code;
    reply.queries.clone_from(&request.queries);
    reply.edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    reply
}

/// How large a reply may be.
pub(super) fn limit(request: &Message, transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => request.edns.as_ref().map_or(PLAIN_DATAGRAM, |_| request.max_payload().min(DATAGRAM)),
    }
}

/// Writes a message of at most `limit` bytes over what is in `out`.
///
/// Answers that do not fit are left out and the message marked as truncated: some clients do not ask again over TCP, and
/// a part is better than nothing for them. Left-out additional records are no truncation.
pub(super) fn write(message: &Message, limit: u16, out: &mut Vec<u8>) -> Result<(), ProtoError> {
    out.clear();
    let mut encoder = BinEncoder::new(out);
    encoder.set_max_size(limit - if message.edns.is_some() { OPT_LEN } else { 0 });
    let header = encoder.place::<Header>()?;
    let mut counts = HeaderCounts::default();
    let mut metadata = message.metadata;
    counts.queries = fit(encoder.emit_all(message.queries.iter()))?.0;
    for (records, count) in [(&message.answers, &mut counts.answers), (&message.authorities, &mut counts.authorities)] {
        if !metadata.truncation {
            (*count, metadata.truncation) = fit(encoder.emit_all(records.iter()))?;
        }
    }
    if !metadata.truncation {
        counts.additionals = fit(encoder.emit_all(message.additionals.iter()))?.0;
    }
    if let Some(mut edns) = message.edns.clone() {
        encoder.set_max_size(limit);
        edns.set_rcode_high(metadata.response_code.high());
        Record::from(&edns).emit(&mut encoder)?;
        counts.additionals += 1;
    }
    header.replace(&mut encoder, Header { metadata, counts })?;
    encoder.trim();
    Ok(())
}

/// How many were written, and whether that was not all.
fn fit(written: Result<usize, ProtoError>) -> Result<(u16, bool), ProtoError> {
    let (count, cut) = match written {
        Ok(count) => (count, false),
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => (count, true),
        Err(error) => return Err(error),
    };
    Ok((u16::try_from(count).unwrap_or(u16::MAX), cut))
}
