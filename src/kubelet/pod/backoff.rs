//! Growing delays for what keeps failing: container restarts and image pulls.

use std::collections::HashMap;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// A key without failures for this long starts anew.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated: Instant,
}

/// Delays by key: 10 s at first, doubled at each failure, at most 300 s.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    entries: HashMap<String, Entry>,
}

impl BackOff {
    /// What is left to wait for a key that failed at `since`, with the whole delay; `None` when it may go ahead.
    pub(crate) fn remaining(&self, key: &str, since: Instant, now: Instant) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if since.saturating_duration_since(entry.updated) > FORGET {
            return None;
        }
        let left = (since + entry.delay).checked_duration_since(now)?;
        (!left.is_zero()).then_some((left, entry.delay))
    }

    /// Counts one more failure, which was at `since`.
    pub(crate) fn failed(&mut self, key: &str, since: Instant, now: Instant) {
        let delay = match self.entries.get(key) {
            Some(entry) if since.saturating_duration_since(entry.updated) <= FORGET => (entry.delay * 2).min(MAX),
            _ => FIRST,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Like [`Self::remaining`], counted from the last failure itself.
    pub(crate) fn since_failure(&self, key: &str, now: Instant) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        (entry.updated + entry.delay).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Drops the keys that start with `prefix`.
    pub(crate) fn forget(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut back_off = BackOff::default();
        let start = Instant::now();
        assert!(back_off.remaining("a", start, start).is_none());
        back_off.failed("a", start, start);
        assert_eq!(back_off.remaining("a", start, start).map(|r| r.1), Some(FIRST));
        assert!(back_off.remaining("a", start, start + FIRST).is_none());
        for _ in 0..10 {
            back_off.failed("a", start, start);
        }
        assert_eq!(back_off.remaining("a", start, start).map(|r| r.1), Some(MAX));
        let later = start + FORGET + Duration::from_secs(1);
        assert!(back_off.remaining("a", later, later).is_none());
        back_off.failed("a", later, later);
        assert_eq!(back_off.remaining("a", later, later).map(|r| r.1), Some(FIRST));
    }
}
