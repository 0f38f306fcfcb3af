//! The cluster's zone: its name, and records within it.

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{NS, SOA};
use hickory_proto::rr::{Name, RData, Record};

pub(super) struct Zone {
    pub(super) name: Name,
    /// In lower case, as in a query that was lowered.
    labels: Vec<String>,
    server: Name,
    mailbox: Name,
    ttl: u32,
}

impl Zone {
    pub(super) fn new(domain: &str, ttl: u32) -> Result<Self, ProtoError> {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        Ok(Self {
            name: Name::from_ascii(format!("{domain}."))?,
            server: Name::from_ascii(format!("ns.dns.{domain}."))?,
            mailbox: Name::from_ascii(format!("hostmaster.{domain}."))?,
            labels: domain.split('.').map(str::to_owned).collect(),
            ttl,
        })
    }

    /// The labels in front of the zone's own; `None` for a name outside.
    pub(super) fn below<'a, 'b>(&self, labels: &'b [&'a str]) -> Option<&'b [&'a str]> {
        let (below, own) = labels.split_at_checked(labels.len().checked_sub(self.labels.len())?)?;
        own.iter().eq(self.labels.iter()).then_some(below)
    }

    pub(super) fn record(&self, name: Name, data: RData) -> Record {
        Record::from_rdata(name, self.ttl, data)
    }

    pub(super) fn soa(&self, serial: u32) -> RData {
        let (server, mailbox) = (self.server.clone(), self.mailbox.clone());
        RData::SOA(SOA::new(server, mailbox, serial, 7200, 1800, 86400, self.ttl))
    }

    pub(super) fn ns(&self) -> RData {
        RData::NS(NS(self.server.clone()))
    }

    /// The name of a Service or of an endpoint; `None` when it would not be a name.
    pub(super) fn service(&self, namespace: &str, service: &str, host: Option<&str>) -> Option<Name> {
        let labels = host.into_iter().chain([service, namespace, "svc"]);
        let labels = labels.chain(self.labels.iter().map(String::as_str)).map(str::as_bytes);
        let mut name = Name::from_labels(labels).ok()?;
        name.set_fqdn(true);
        Some(name)
    }
}
