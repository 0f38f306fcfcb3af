//! The committed head: what reads and watches see.
//!
//! Invariant: state, revision and history move together under one lock, so a watch from a snapshot's revision misses
//! nothing and repeats nothing.

use crate::history::History;
use crate::pending::{Batch, State};
use crate::snapshot::Snapshot;
use crate::watcher::Groups;
use crate::{Error, Event, EventKind};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Past snapshots kept because a paginated LIST asks for the same revision page after page.
const KEPT_SNAPSHOTS: usize = 4;

pub(crate) struct Committed {
    state: State,
    revision: u64,
    pub(crate) history: History,
    pub(crate) groups: Groups,
    past: Mutex<VecDeque<Snapshot>>,
}

impl Committed {
    pub(crate) fn new(state: State, revision: u64, keep: Duration, keep_bytes: usize) -> Self {
        Self {
            state,
            revision,
            history: History::new(revision, keep, keep_bytes),
            groups: Groups::default(),
            past: Mutex::default(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { state: self.state.clone(), revision: self.revision }
    }

    /// The state at `revision`, or what it takes to find it.
    pub(crate) fn past(&self, revision: u64) -> Result<Past, Error> {
        if revision == self.revision {
            return Ok(Past::Known(self.snapshot()));
        }
        self.check(revision)?;
        if let Some(kept) = self.past.lock().iter().find(|kept| kept.revision == revision) {
            return Ok(Past::Known(kept.clone()));
        }
        let later = self.history.backwards().take_while(|event| event.entry.revision > revision);
        Ok(Past::Undone(Undo { state: self.state.clone(), later: later.cloned().collect(), revision }))
    }

    /// Remembers a past state, for as long as history reaches back to it.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        let mut past = self.past.lock();
        if snapshot.revision < self.history.floor() || past.iter().any(|kept| kept.revision == snapshot.revision) {
            return;
        }
        if past.len() == KEPT_SNAPSHOTS {
            past.pop_front();
        }
        past.push_back(snapshot.clone());
    }

    /// Is everything after `revision` still known?
    pub(crate) fn check(&self, revision: u64) -> Result<(), Error> {
        if revision > self.revision {
            return Err(Error::Future { requested: revision, newest: self.revision });
        }
        if revision < self.history.floor() {
            return Err(Error::Compacted { requested: revision, oldest: self.history.floor() });
        }
        Ok(())
    }

    /// Takes over a committed batch. Answers what wakes the watchers it concerns: they look here first, so not before
    /// others may.
    pub(crate) fn publish(&mut self, batch: &mut Batch) -> Vec<Arc<Notify>> {
        let now = Instant::now();
        for transaction in &mut batch.transactions {
            for change in transaction.changes.drain(..) {
                self.groups.touch(&change.entry.key, self.history.end());
                let event = Event { kind: change.kind, entry: change.entry, prev: change.prev };
                self.history.push(Arc::new(event), now);
            }
        }
        self.state = batch.state.clone();
        self.revision = batch.revision;
        self.history.compact(now, |key, position| self.groups.let_go(key, position));
        let floor = self.history.floor();
        self.past.get_mut().retain(|kept| kept.revision >= floor);
        self.groups.touched()
    }
}

/// A state of the past.
pub(crate) enum Past {
    Known(Snapshot),
    Undone(Undo),
}

/// A newer state, and the events since, the newest first.
pub(crate) struct Undo {
    state: State,
    later: Vec<Arc<Event>>,
    revision: u64,
}

impl Undo {
    pub(crate) fn undo(self) -> Snapshot {
        let Self { mut state, later, revision } = self;
        for event in later {
            match &event.prev {
                Some(prev) => state.insert(Arc::clone(&prev.key), prev.clone()),
                None => state.remove(&*event.entry.key),
            };
        }
        Snapshot { state, revision }
    }
}

impl EventKind {
    pub(crate) fn is_put(self) -> bool {
        self == Self::Put
    }
}
