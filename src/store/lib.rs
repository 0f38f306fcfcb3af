//! The durable log of objects and its current state in memory.
//!
//! Owns revisions, transactions, bounded history, compaction and the watch hub. Knows bytes and keys; no kinds, no HTTP.
//! Invariant: one sequence, two heads. Writes check preconditions against *pending*; reads and watches see *committed*;
//! what is on disk is always a prefix of that sequence, and no revision is ever issued twice.

use bytes::Bytes;
use std::sync::Arc;

/// One stored value and when it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Arc<str>,
    /// The final bytes, as `finish` made them: what GET, LIST and WATCH send.
    pub bytes: Bytes,
    pub revision: u64,
}

/// What must hold of a key in *pending* for an operation to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    /// Present with exactly this revision.
    Revision(u64),
}

/// Makes the final bytes once the revision is known. Must be quick and must not block: it runs under the sequence lock.
pub type Finish = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// One change of a transaction.
pub enum Op {
    Put {
        key: Arc<str>,
        expect: Expect,
        finish: Finish,
    },
    /// `finish` makes the object's last state, which watchers are sent with DELETED.
    Delete {
        key: Arc<str>,
        expect: Expect,
        finish: Finish,
    },
}

/// Why a transaction was refused; nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("key {key} exists already")]
    Exists { key: Arc<str> },
    /// The key is absent, or was written since.
    #[error("key {key} has changed")]
    Changed { key: Arc<str>, current: Option<Entry> },
    #[error("revision {requested} is compacted; the oldest kept is {oldest}")]
    Compacted { requested: u64, oldest: u64 },
    #[error("revision {requested} is not issued yet; the newest is {newest}")]
    Future { requested: u64, newest: u64 },
    #[error("the database failed: {0}")]
    Database(String),
    #[error("the store is closed")]
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One committed change, as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    /// After a Put the new value; after a Delete the last state that `finish` made. Its revision is the event's.
    pub entry: Entry,
    /// The value before, if there was one: a watcher with a selector needs it to tell ADDED from MODIFIED from DELETED.
    pub prev: Option<Entry>,
}
