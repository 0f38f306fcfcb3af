//! The pending head: what writes are checked against, and the queue of accepted transactions.
//!
//! Invariant: revisions are given out here, under one lock, in the order in which transactions are queued, and never
//! twice, not even after a failed commit.

use crate::{Entry, Error, EventKind, Expect, Op};
use bytes::Bytes;
use imbl::OrdMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The objects of one moment, in key order. Clones share structure.
pub(crate) type State = OrdMap<Arc<str>, Entry>;

pub(crate) type Reply = oneshot::Sender<Result<Vec<Entry>, Error>>;

/// One accepted change.
pub(crate) struct Change {
    pub(crate) kind: EventKind,
    pub(crate) entry: Entry,
    pub(crate) prev: Option<Entry>,
}

/// One accepted transaction.
pub(crate) struct Transaction {
    pub(crate) changes: Vec<Change>,
    /// It changes lazy keys alone, and makes and deletes none.
    pub(crate) lazy: bool,
    pub(crate) answer: Vec<Entry>,
    pub(crate) reply: Reply,
}

/// Transactions taken together, and the state after the last of them.
pub(crate) struct Batch {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) state: State,
    pub(crate) revision: u64,
}

pub(crate) struct Sequence {
    state: State,
    /// The last revision given out.
    revision: u64,
    queue: Vec<Transaction>,
    pub(crate) closing: bool,
}

impl Sequence {
    pub(crate) fn new(state: State, revision: u64) -> Self {
        Self { state, revision, queue: Vec::new(), closing: false }
    }

    /// Checks all expectations, then applies all operations and queues them. True when the queue was empty, so that the
    /// writer may be asleep.
    pub(crate) fn accept(&mut self, ops: Vec<Op>, lazy_prefixes: &[String], reply: Reply) -> Result<bool, Error> {
        if self.closing {
            return Err(Error::Closed);
        }
        for op in &ops {
            let (Op::Put { key, expect, .. } | Op::Delete { key, expect, .. }) = op;
            check(key, *expect, self.state.get(&**key))?;
        }
        // Only a change of what is there: what is made or deleted must still be so after an unclean stop.
        let lazy = ops.iter().all(|op| match op {
            Op::Put { key, .. } => {
                lazy_prefixes.iter().any(|prefix| key.starts_with(prefix.as_str())) && self.state.contains_key(&**key)
            }
            Op::Delete { .. } => false,
        });
        let revision = self.revision + 1;
        self.revision = revision;
        let mut answer = Vec::with_capacity(ops.len());
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            match op {
                Op::Put { key, finish, .. } => {
                    let entry = Entry { key: Arc::clone(&key), bytes: finish(revision), revision };
                    let prev = self.state.insert(key, entry.clone());
                    answer.push(entry.clone());
                    changes.push(Change { kind: EventKind::Put, entry, prev });
                }
                Op::Delete { key, finish, .. } => match self.state.remove(&*key) {
                    Some(prev) => {
                        let entry = Entry { key, bytes: finish(revision), revision };
                        answer.push(entry.clone());
                        changes.push(Change { kind: EventKind::Delete, entry, prev: Some(prev) });
                    }
                    None => answer.push(Entry { key, bytes: Bytes::new(), revision }),
                },
            }
        }
        let first = self.queue.is_empty();
        self.queue.push(Transaction { changes, lazy, answer, reply });
        Ok(first)
    }

    /// Everything queued, if anything is.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        (!self.queue.is_empty()).then(|| Batch {
            transactions: std::mem::take(&mut self.queue),
            state: self.state.clone(),
            revision: self.revision,
        })
    }

    /// After a failed commit: goes back to `state` and returns what was accepted on top of the failed batch. Its
    /// revisions stay used.
    pub(crate) fn roll_back(&mut self, state: State) -> Vec<Transaction> {
        self.state = state;
        std::mem::take(&mut self.queue)
    }
}

fn check(key: &Arc<str>, expect: Expect, current: Option<&Entry>) -> Result<(), Error> {
    match (expect, current) {
        (Expect::Any, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(_)) => Err(Error::Exists { key: Arc::clone(key) }),
        (Expect::Revision(wanted), Some(entry)) if entry.revision == wanted => Ok(()),
        (Expect::Revision(_), current) => Err(Error::Changed { key: Arc::clone(key), current: current.cloned() }),
    }
}
