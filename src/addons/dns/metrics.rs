//! Counters under the names that dashboards made for CoreDNS look for.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reply codes that are counted by name; the others are one.
const CODES: [(usize, &str); 6] =
    [(0, "NOERROR"), (1, "FORMERR"), (2, "SERVFAIL"), (3, "NXDOMAIN"), (4, "NOTIMP"), (5, "REFUSED")];

#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) udp: AtomicU64,
    pub(super) tcp: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) recalled: AtomicU64,
    replies: [AtomicU64; CODES.len()],
    other: AtomicU64,
}

impl Metrics {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn replied(&self, code: u8) {
        Self::count(self.replies.get(usize::from(code)).unwrap_or(&self.other));
    }

    /// In Prometheus' text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, help: &str, values: &[(String, &AtomicU64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, value) in values {
                let _ = writeln!(text, "{name}{labels} {}", value.load(Ordering::Relaxed));
            }
        };
        let protocols = [("{proto=\"udp\"}".to_owned(), &self.udp), ("{proto=\"tcp\"}".to_owned(), &self.tcp)];
        metric("coredns_dns_requests_total", "Requests that came in.", &protocols);
        let named = CODES.iter().zip(&self.replies).map(|((_, name), count)| (format!("{{rcode=\"{name}\"}}"), count));
        let codes: Vec<_> = named.chain([("{rcode=\"other\"}".to_owned(), &self.other)]).collect();
        metric("coredns_dns_responses_total", "Replies that went out.", &codes);
        metric("coredns_forward_requests_total", "Requests passed on.", &[(String::new(), &self.forwarded)]);
        metric("coredns_cache_hits_total", "Replies told from memory.", &[(String::new(), &self.recalled)]);
        text
    }
}
