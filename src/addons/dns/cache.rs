//! Replies of other servers, for as long as they live: bounded in number and size, and forgotten without a timer.

use super::packet;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// At most this many replies are kept, each at most this large: 2 MiB at worst.
const ENTRIES: usize = 1024;
const LARGEST: usize = 2048;
/// No reply is kept longer, however long it says it lives, so that a change in the world is seen.
const LONGEST: u32 = 30;

struct Entry {
    reply: Vec<u8>,
    since: Instant,
    life: Duration,
}

#[derive(Default)]
struct Kept {
    replies: HashMap<Vec<u8>, Entry>,
    /// In the order of their keeping; the first goes first.
    order: VecDeque<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
}

impl Cache {
    /// Replaces `out` with a reply that is still alive, its records aged.
    pub(super) fn get(&self, key: &[u8], out: &mut Vec<u8>) -> bool {
        let kept = self.kept.lock();
        let Some(entry) = kept.replies.get(key) else { return false };
        let age = entry.since.elapsed();
        if age >= entry.life {
            return false;
        }
        out.clear();
        out.extend_from_slice(&entry.reply);
        drop(kept);
        packet::age(out, u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        true
    }

    pub(super) fn put(&self, key: Vec<u8>, reply: &[u8]) {
        let life = packet::lifetime(reply).unwrap_or_default().min(LONGEST);
        if life == 0 || reply.len() > LARGEST {
            return;
        }
        let entry = Entry { reply: reply.to_vec(), since: Instant::now(), life: Duration::from_secs(life.into()) };
        let mut kept = self.kept.lock();
        if kept.replies.insert(key.clone(), entry).is_some() {
            return;
        }
        kept.order.push_back(key);
        if kept.order.len() > ENTRIES
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.replies.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use std::net::Ipv4Addr;

    fn reply(ttl: u32) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(Name::root(), RecordType::A));
        message.add_answer(Record::from_rdata(Name::root(), ttl, RData::A(Ipv4Addr::LOCALHOST.into())));
        message.to_vec().unwrap()
    }

    #[test]
    fn it_keeps_what_lives_and_no_more_than_it_may() {
        let cache = Cache::default();
        let mut out = Vec::new();
        cache.put(b"dead".to_vec(), &reply(0));
        assert!(!cache.get(b"dead", &mut out));
        for number in 0..=ENTRIES {
            cache.put(number.to_be_bytes().to_vec(), &reply(60));
        }
        assert!(!cache.get(&0_usize.to_be_bytes(), &mut out));
        assert!(cache.get(&ENTRIES.to_be_bytes(), &mut out));
        assert_eq!(out, reply(60));
        let kept = cache.kept.lock();
        assert_eq!((kept.order.len(), kept.replies.len()), (ENTRIES, ENTRIES));
    }

    #[test]
    fn what_is_over_is_not_told() {
        let cache = Cache::default();
        cache.put(b"short".to_vec(), &reply(1));
        let mut out = Vec::new();
        assert!(cache.get(b"short", &mut out));
        std::thread::sleep(Duration::from_millis(1050));
        assert!(!cache.get(b"short", &mut out));
    }
}
