//! The bounded ring of recent events, in revision order.
//!
//! Invariant: every event with a revision above `floor` is present; events of one revision leave together.

use crate::Event;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) struct History {
    ring: VecDeque<Kept>,
    /// Position of the ring's first event in the sequence of all events since the start.
    first: u64,
    /// The newest revision of which an event may be gone.
    floor: u64,
    bytes: usize,
    keep: Duration,
    keep_bytes: usize,
}

struct Kept {
    event: Arc<Event>,
    at: Instant,
    bytes: usize,
}

/// What an event costs beyond its values: the ring's slot, the shared key and the allocations.
const OVERHEAD: usize = 256;

impl History {
    pub(crate) fn new(floor: u64, keep: Duration, keep_bytes: usize) -> Self {
        Self { ring: VecDeque::new(), first: 0, floor, bytes: 0, keep, keep_bytes }
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Position of the next event to come.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    /// Position of the first event with a revision above `after`; `None` when such events may be gone.
    pub(crate) fn position_after(&self, after: u64) -> Option<u64> {
        (after >= self.floor)
            .then(|| self.first + self.ring.partition_point(|kept| kept.event.entry.revision <= after) as u64)
    }

    /// What is left of the events from `position` on, and the position of the first of them.
    pub(crate) fn from(&self, position: u64) -> (u64, impl Iterator<Item = &Arc<Event>>) {
        let position = position.clamp(self.first, self.end());
        let skip = usize::try_from(position - self.first).unwrap_or(usize::MAX);
        (position, self.ring.range(skip.min(self.ring.len())..).map(|kept| &kept.event))
    }

    /// Events from the newest to the oldest.
    pub(crate) fn backwards(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.ring.iter().rev().map(|kept| &kept.event)
    }

    pub(crate) fn push(&mut self, event: Arc<Event>, at: Instant) {
        let prev = event.prev.as_ref().map_or(0, |prev| prev.bytes.len());
        let bytes = event.entry.bytes.len() + event.entry.key.len() + prev + OVERHEAD;
        self.bytes += bytes;
        self.ring.push_back(Kept { event, at, bytes });
    }

    /// Lets go of what is too old or too much, and says so with key and position.
    pub(crate) fn compact(&mut self, now: Instant, mut gone: impl FnMut(&str, u64)) {
        while let Some(oldest) = self.ring.front() {
            let expired = now.saturating_duration_since(oldest.at) > self.keep || self.bytes > self.keep_bytes;
            // The rest of a revision follows its first event out.
            if !expired && oldest.event.entry.revision != self.floor {
                break;
            }
            gone(&oldest.event.entry.key, self.first);
            self.floor = oldest.event.entry.revision;
            self.bytes -= oldest.bytes;
            self.first += 1;
            self.ring.pop_front();
        }
        // A burst must not leave its capacity behind for good.
        if self.ring.capacity() > 1024 && self.ring.len() < self.ring.capacity() / 8 {
            self.ring.shrink_to(self.ring.len() * 2);
        }
    }
}
