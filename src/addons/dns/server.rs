//! From a request's bytes to a reply's: at once from the index or from memory, or later from elsewhere.

use super::answer::{Reply, answer};
use super::forward::Forwarders;
use super::message::{self, Request, Transport};
use super::metrics::Metrics;
use super::packet;
use super::upstream::Ask;
use super::watch::Shared;
use super::zone::Zone;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, Record};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) struct Server {
    pub(super) zone: Zone,
    pub(super) index: Arc<Shared>,
    pub(super) forwarders: Forwarders,
    pub(super) metrics: Metrics,
}

/// How far a request has come.
pub(super) enum Step {
    /// The reply is written.
    Reply,
    /// There is nothing to reply.
    Silence,
    /// Others have to be asked.
    Later(Box<Pending>),
}

/// A request that waits for others.
pub(super) struct Pending {
    request: Message,
    packet: Vec<u8>,
    transport: Transport,
    /// What is known already, when it is an alias that leads elsewhere.
    known: Option<Reply>,
}

impl Server {
    /// Answers into `out` what can be answered at once.
    pub(super) fn begin(&self, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Step {
        let request = match message::read(packet) {
            Request::Noise => return Step::Silence,
            Request::Refused(reply) => {
                self.count(transport);
                return self.write(&reply, u16::MAX, out);
            }
            Request::Question(request) => *request,
        };
        self.count(transport);
        let Some(query) = request.queries.first() else { return Step::Silence };
        let known = answer(&self.zone, &self.index.read(), query);
        match known {
            Some(reply) if reply.chase.is_none() || self.forwarders.is_empty() => {
                self.reply(&request, reply, transport, out)
            }
            None if self.forwarders.is_empty() => self.fail(&request, out),
            None if ask(&request, packet).is_some_and(|ask| self.forwarders.recall(ask, out)) => {
                Metrics::count(&self.metrics.recalled);
                self.pass_on(&request, packet, transport, out);
                Step::Reply
            }
            known => Step::Later(Box::new(Pending { request, packet: packet.to_vec(), transport, known })),
        }
    }

    /// Asks others; the reply.
    pub(super) async fn finish(&self, pending: Pending) -> Vec<u8> {
        Metrics::count(&self.metrics.forwarded);
        let Pending { request, packet, transport, known } = pending;
        let mut out = Vec::new();
        match known {
            Some(reply) => {
                let reply = self.chase(&request, reply).await;
                self.reply(&request, reply, transport, &mut out);
            }
            None => match ask(&request, &packet) {
                Some(ask) => match self.forwarders.ask(ask, &self.own()).await {
                    Some(told) => {
                        out = told;
                        self.pass_on(&request, &packet, transport, &mut out);
                    }
                    None => _ = self.fail(&request, &mut out),
                },
                None => _ = self.fail(&request, &mut out),
            },
        }
        out
    }

    /// SERVFAIL, for want of anybody to ask.
    pub(super) fn refuse(&self, pending: &Pending, out: &mut Vec<u8>) {
        self.fail(&pending.request, out);
    }

    /// Adds what is behind an alias, if anybody tells; the alias alone is an answer too.
    async fn chase(&self, request: &Message, mut reply: Reply) -> Reply {
        let (Some(target), Some(query)) = (reply.chase.take(), request.queries.first()) else { return reply };
        if let Some((code, records)) = self.lookup(target, query).await {
            reply.code = code;
            reply.answers.extend(records);
        }
        reply
    }

    async fn lookup(&self, name: Name, query: &Query) -> Option<(ResponseCode, Vec<Record>)> {
        let mut asked = Message::query();
        asked.add_query(Query::query(name, query.query_type()));
        let asked = asked.to_vec().ok()?;
        let ask = Ask { question: packet::question(&asked)?, checking_disabled: false, edns: None };
        let mut told = Vec::new();
        if !self.forwarders.recall(ask, &mut told) {
            told = self.forwarders.ask(ask, &self.own()).await?;
        }
        let told = Message::from_vec(&told).ok()?;
        let code = told.metadata.response_code;
        matches!(code, ResponseCode::NoError | ResponseCode::NXDomain).then_some((code, told.answers))
    }

    /// Addresses that lead back to this server.
    fn own(&self) -> Vec<IpAddr> {
        let index = self.index.read();
        index.names(super::answer::OWN.0, super::answer::OWN.1).map(|own| own.addresses.clone()).unwrap_or_default()
    }

    fn reply(&self, request: &Message, reply: Reply, transport: Transport, out: &mut Vec<u8>) -> Step {
        let mut message = message::reply_to(request, reply.code);
        // What is not listed yet is not said to be missing.
        if reply.answers.is_empty() && !self.index.is_complete() {
            message.metadata.response_code = ResponseCode::ServFail;
            return self.write(&message, u16::MAX, out);
        }
        message.metadata.authoritative = true;
        message.metadata.recursion_available = !self.forwarders.is_empty();
        (message.answers, message.authorities, message.additionals) =
            (reply.answers, reply.authorities, reply.additionals);
        self.write(&message, message::limit(request, transport), out)
    }

    fn fail(&self, request: &Message, out: &mut Vec<u8>) -> Step {
        self.write(&message::reply_to(request, ResponseCode::ServFail), u16::MAX, out)
    }

    fn write(&self, message: &Message, limit: u16, out: &mut Vec<u8>) -> Step {
        if let Err(error) = message::write(message, limit, out) {
            tracing::error!(%error, "a reply that cannot be written");
            return Step::Silence;
        }
        self.metrics.replied(packet::code(out));
        Step::Reply
    }

    /// Makes another server's reply in `out` the reply to this request.
    fn pass_on(&self, request: &Message, packet: &[u8], transport: Transport, out: &mut Vec<u8>) {
        packet::readdress(out, packet);
        if out.len() > usize::from(message::limit(request, transport)) {
            packet::truncate(out);
        }
        self.metrics.replied(packet::code(out));
    }

    fn count(&self, transport: Transport) {
        Metrics::count(match transport {
            Transport::Udp => &self.metrics.udp,
            Transport::Tcp => &self.metrics.tcp,
        });
    }
}

fn ask<'a>(request: &Message, packet: &'a [u8]) -> Option<Ask<'a>> {
    Some(Ask {
        question: packet::question(packet)?,
        checking_disabled: request.metadata.checking_disabled,
        edns: request.edns.as_ref().map(|edns| edns.flags().dnssec_ok),
    })
}
