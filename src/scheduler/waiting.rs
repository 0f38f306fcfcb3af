//! Pods that wait: those to be tried now or after their back-off, and those that fit nowhere until something changes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use mini_client::Queue;

/// A pod that fits nowhere is tried again after this long even if nothing seems to have changed.
const AT_LEAST: Duration = Duration::from_secs(300);
/// Back-off after the first failed attempt, doubled by each further one.
const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Pods to be tried now: the most important ones first, then those that came first.
#[derive(Default)]
pub(crate) struct Line {
    heap: BinaryHeap<(i32, Reverse<u64>, Key)>,
    sequence: u64,
}

impl Line {
    pub(crate) fn push(&mut self, key: Key, priority: i32) {
        self.sequence += 1;
        self.heap.push((priority, Reverse(self.sequence), key));
    }

    pub(crate) fn pop(&mut self) -> Option<Key> {
        self.heap.pop().map(|(.., key)| key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) queue: Queue<Key>,
    /// How often each waiting pod failed, and whether it is parked.
    attempts: HashMap<Key, (u32, bool)>,
}

impl Waiting {
    /// New or changed: to be tried now.
    pub(crate) fn add(&mut self, key: Key) {
        self.queue.add(key);
    }

    /// No longer waits.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.attempts.remove(key);
    }

    /// Fits nowhere: waits for a change.
    pub(crate) fn park(&mut self, key: Key) {
        let (attempts, parked) = self.attempts.entry(key.clone()).or_default();
        *attempts = attempts.saturating_add(1);
        *parked = true;
        self.queue.add_after(key, AT_LEAST);
    }

    /// Waits for its volumes, which is no failure.
    pub(crate) fn rest(&mut self, key: Key) {
        self.attempts.entry(key.clone()).or_default().1 = true;
        self.queue.add_after(key, AT_LEAST);
    }

    /// Could not be bound: to be tried again soon.
    pub(crate) fn retry(&mut self, key: Key) {
        let (attempts, _) = self.attempts.entry(key.clone()).or_default();
        *attempts = attempts.saturating_add(1);
        let delay = delay(*attempts);
        self.queue.add_after(key, delay);
    }

    /// Something changed that may help: the parked are tried again, each after its back-off.
    pub(crate) fn retry_all(&mut self) {
        self.retry_those(|_| true);
    }

    /// The same for the parked that `may_fit` picks.
    pub(crate) fn retry_those(&mut self, may_fit: impl Fn(&Key) -> bool) {
        for (key, (attempts, parked)) in &mut self.attempts {
            if *parked && may_fit(key) {
                *parked = false;
                self.queue.add_after(key.clone(), delay(*attempts));
            }
        }
    }
}

fn delay(attempts: u32) -> Duration {
    FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LAST)
}
