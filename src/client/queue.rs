//! A work queue of keys: each key once, one worker per key at a time, with delays and per-key back-off.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(1000);

/// A queue of keys. Clones share it.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// What is in `ready`, or is to be once its worker is done.
    dirty: HashSet<T>,
    working: HashSet<T>,
    later: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed: HashMap<u64, T>,
    /// When each delayed key falls due: one time per key, the earliest asked for.
    due: HashMap<T, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<T, u32>,
    closed: bool,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BinaryHeap::new(),
            delayed: HashMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            closed: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Adds a key, unless it already waits. One being worked on is given out again when it is done.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds a key after a while, or at the time it already waits for where that is sooner.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        // A delay beyond what a clock can hold is never.
        let Some(due) = Instant::now().checked_add(delay) else { return };
        if self.shared.state.lock().delay(key, due) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds a key after its back-off: 5 ms, doubled by each retry up to 1000 s, until `forget`.
    pub fn retry(&self, key: T) {
        let delay = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = FIRST_RETRY.saturating_mul(1 << (*failures).min(20)).min(LAST_RETRY);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
    }

    /// How often a key was retried since it was last forgotten.
    #[must_use]
    pub fn retries(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Ends a key's back-off.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// The next key to work on; `None` once the queue is closed. Call `done` afterwards.
    pub async fn next(&self) -> Option<T> {
        loop {
            let changed = self.shared.changed.notified();
            let (key, due, more) = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                let due = state.promote(Instant::now());
                (state.take(), due, !state.ready.is_empty())
            };
            if let Some(key) = key {
                if more {
                    // Promotion may have readied several keys for one wake-up.
                    self.shared.changed.notify_one();
                }
                return Some(key);
            }
            match due {
                Some(due) => tokio::select! { () = changed => {}, () = sleep_until(due) => {} },
                None => changed.await,
            }
        }
    }

    /// A key's work is over.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// How many keys are ready to be worked on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends every `next`.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn delay(&mut self, key: T, due: Instant) -> bool {
        if let Some((sooner, sequence)) = self.due.get(&key) {
            if *sooner <= due {
                return false;
            }
            self.delayed.remove(sequence);
        }
        self.sequence += 1;
        self.later.push(Reverse((due, self.sequence)));
        self.delayed.insert(self.sequence, key.clone());
        self.due.insert(key, (due, self.sequence));
        true
    }

    /// Readies what is due; the time of the next delayed key.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((due, sequence))) = self.later.peek().copied() {
            if due > now {
                return Some(due);
            }
            self.later.pop();
            if let Some(key) = self.delayed.remove(&sequence) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        None
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_worked_on_comes_back_once_when_done() {
        let queue = Queue::new();
        queue.add("a");
        assert_eq!(queue.next().await, Some("a"));
        queue.add("a");
        queue.add("a");
        assert!(timeout(Duration::from_secs(1), queue.next()).await.is_err());
        queue.done(&"a");
        assert_eq!(queue.next().await, Some("a"));
        queue.done(&"a");
        assert!(timeout(Duration::from_secs(1), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn retries_double_until_forgotten() {
        let queue = Queue::new();
        let mut delays = Vec::new();
        for _ in 0..4 {
            let start = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            delays.push(start.elapsed().as_millis());
        }
        assert_eq!(delays, [5, 10, 20, 40]);
        queue.forget(&"a");
        let start = Instant::now();
        queue.retry("a");
        queue.next().await;
        assert_eq!(start.elapsed().as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_in_order_of_their_time() {
        let queue = Queue::new();
        queue.add_after("late", Duration::from_secs(2));
        queue.add_after("soon", Duration::from_secs(1));
        assert_eq!(queue.next().await, Some("soon"));
        assert_eq!(queue.next().await, Some("late"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_key_comes_once_at_the_soonest_time_asked_for() {
        let queue = Queue::new();
        let start = Instant::now();
        for seconds in [3, 1, 2] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.done(&"a");
        assert!(timeout(Duration::from_secs(9), queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn several_workers_share_what_falls_due_at_once() {
        let queue = Queue::new();
        for n in 0..3 {
            queue.add_after(n, Duration::from_secs(1));
        }
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        advance(Duration::from_secs(1)).await;
        for worker in workers {
            assert!(timeout(Duration::from_secs(1), worker).await.unwrap().unwrap().is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_the_wait() {
        let queue = Queue::<u8>::new();
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap(), None);
    }
}
