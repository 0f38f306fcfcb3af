//! The watch hub: who follows which prefix, and each follower's place in history.
//!
//! Watchers pull from the shared history and keep no queue of their own beyond a short buffer, so a slow one costs
//! nothing and never slows a writer; when history has moved past an event that it has not seen, it is closed and resumes by
//! revision, or with a fresh list.

use crate::{Error, Event, Shared};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Events taken from history under one lock.
const BUFFER: usize = 64;

/// Watchers by prefix. Few prefixes are followed by many.
#[derive(Default)]
pub(crate) struct Groups {
    by_prefix: BTreeMap<Arc<str>, Group>,
}

struct Group {
    watchers: usize,
    wake: Arc<Notify>,
    /// Behind the position of the newest event with this prefix since the group exists.
    end: u64,
    /// Behind the position of the newest event with this prefix that history has let go.
    gone: u64,
    touched: bool,
}

impl Groups {
    /// An event with this key is about to take `position`.
    pub(crate) fn touch(&mut self, key: &str, position: u64) {
        self.each_matching(key, |group| {
            group.end = position + 1;
            group.touched = true;
        });
    }

    /// History lets go of the event with this key at `position`.
    pub(crate) fn let_go(&mut self, key: &str, position: u64) {
        self.each_matching(key, |group| group.gone = position + 1);
    }

    /// Calls `each` for the groups whose prefix the key has: not by looking at all of them, but from the longest on, each
    /// step leading to what can be a shorter one.
    fn each_matching(&mut self, key: &str, mut each: impl FnMut(&mut Group)) {
        let mut candidate = key;
        loop {
            let not_behind = (Bound::Unbounded, Bound::Included(candidate));
            let Some((prefix, group)) = self.by_prefix.range_mut::<str, _>(not_behind).next_back() else { return };
            let mut shared = prefix.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
            if shared == prefix.len() {
                each(group);
                if shared == 0 {
                    return;
                }
                shared -= 1;
            }
            candidate = key.get(..key.floor_char_boundary(shared)).unwrap_or_default();
        }
    }

    /// What wakes the watchers of every prefix touched since the last time.
    pub(crate) fn touched(&mut self) -> Vec<Arc<Notify>> {
        let groups = self.by_prefix.values_mut();
        groups.filter_map(|group| std::mem::take(&mut group.touched).then(|| Arc::clone(&group.wake))).collect()
    }

    fn join(&mut self, prefix: &Arc<str>, end: u64) -> Arc<Notify> {
        let group = self.by_prefix.entry(Arc::clone(prefix)).or_insert_with(|| Group {
            watchers: 0,
            wake: Arc::default(),
            end,
            gone: 0,
            touched: false,
        });
        group.watchers += 1;
        Arc::clone(&group.wake)
    }

    fn leave(&mut self, prefix: &str) {
        if let Some(group) = self.by_prefix.get_mut(prefix) {
            group.watchers -= 1;
            if group.watchers == 0 {
                self.by_prefix.remove(prefix);
            }
        }
    }
}

/// One follower of a prefix. Dropping it ends the watch.
pub struct Watcher {
    shared: Arc<Shared>,
    prefix: Arc<str>,
    wake: Arc<Notify>,
    closed: watch::Receiver<bool>,
    /// Position in the sequence of all events of the first one not looked at yet.
    position: u64,
    /// The revision up to which everything with this prefix was handed out or buffered.
    reached: u64,
    buffer: VecDeque<Arc<Event>>,
}

enum Pulled {
    /// The buffer has events.
    Some,
    /// Nothing new.
    Nothing,
    /// Events were missed.
    Lost,
}

impl Watcher {
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &str, after: u64) -> Result<Self, Error> {
        let prefix: Arc<str> = Arc::from(prefix);
        let closed = shared.closed.subscribe();
        let mut committed = shared.committed.write();
        committed.check(after)?;
        let oldest = committed.history.floor();
        let position = committed.history.position_after(after).ok_or(Error::Compacted { requested: after, oldest })?;
        let end = committed.history.end();
        let wake = committed.groups.join(&prefix, end);
        drop(committed);
        Ok(Self { shared: Arc::clone(shared), prefix, wake, closed, position, reached: after, buffer: VecDeque::new() })
    }

    /// The next event. `None`: closed, because this watcher was too slow or the store closes. Safe to cancel.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Some(event);
            }
            // Registered before looking, so that nothing published in between is slept through.
            let wake = Arc::clone(&self.wake);
            let mut notified = std::pin::pin!(wake.notified());
            notified.as_mut().enable();
            match self.pull() {
                Pulled::Some => continue,
                Pulled::Lost => return None,
                Pulled::Nothing => {}
            }
            tokio::select! {
                () = notified => {}
                () = async { let _ = self.closed.wait_for(|closed| *closed).await; } => {
                    // The last events were published before the store closed.
                    if !matches!(self.pull(), Pulled::Some) {
                        return None;
                    }
                }
            }
        }
    }

    /// The revision up to which nothing with this prefix is left to hand out; `None` while something is.
    pub fn caught_up(&mut self) -> Option<u64> {
        let nothing = self.buffer.is_empty() && matches!(self.pull(), Pulled::Nothing);
        nothing.then_some(self.reached)
    }

    /// An event that was found along with the last one, in its turn.
    pub fn found(&mut self) -> Option<Arc<Event>> {
        self.buffer.pop_front()
    }

    fn pull(&mut self) -> Pulled {
        let committed = self.shared.committed.read();
        let Some(group) = committed.groups.by_prefix.get(&self.prefix) else { return Pulled::Lost };
        if self.position >= group.end {
            // Whatever came since is for others, be it still in history or not.
            self.position = committed.history.end();
            self.reached = committed.revision();
            return Pulled::Nothing;
        }
        if self.position < group.gone {
            return Pulled::Lost;
        }
        let (position, events) = committed.history.from(self.position);
        self.position = position;
        let mut through = true;
        for event in events {
            if event.entry.key.starts_with(&*self.prefix) {
                if self.buffer.len() == BUFFER {
                    through = false;
                    break;
                }
                self.buffer.push_back(Arc::clone(event));
            }
            self.position += 1;
        }
        if through {
            self.reached = committed.revision();
        }
        if self.buffer.is_empty() { Pulled::Nothing } else { Pulled::Some }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.committed.write().groups.leave(&self.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_groups_of_a_key_are_touched() {
        let mut groups = Groups::default();
        let prefixes = ["", "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a/ä", "/b", "/a/bc", "/a/a", "/z"];
        for prefix in prefixes {
            groups.join(&Arc::from(prefix), 0);
        }
        for key in ["/a/b/c", "/a/bcd", "/a/ä/x", "/a/å", "/abc", "x", "", "/a/", "/zz/z", "/a/b"] {
            groups.touch(key, 7);
            for (prefix, group) in &mut groups.by_prefix {
                assert_eq!(group.touched, key.starts_with(&**prefix), "{key} {prefix}");
                group.touched = false;
            }
        }
    }
}
