//! The durable log of objects and its current state in memory.
//!
//! Owns revisions, transactions, bounded history, compaction and the watch hub. Knows bytes and keys; no kinds, no HTTP.
//! Invariant: one sequence, two heads. Writes check preconditions against *pending*; reads and watches see *committed*;
//! what is on disk is always a prefix of that sequence, and no revision is ever issued twice.

mod committed;
mod history;
mod log;
mod pending;
mod snapshot;
mod watcher;
mod writer;

pub use snapshot::Snapshot;
pub use watcher::Watcher;

use bytes::Bytes;
use committed::{Committed, Past};
use parking_lot::{Condvar, Mutex, RwLock};
use pending::Sequence;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

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

/// Where the database is and how much history is kept in memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database file. Its directory must exist; the file is made with mode 0600.
    pub path: PathBuf,
    /// How long events are kept for watches and for reads at older revisions.
    pub history: Duration,
    /// How many bytes of events are kept, whichever limit is met first.
    pub history_bytes: usize,
    /// Keys whose changes need no sync of their own: they ride the next commit or the clean close, and an unclean stop
    /// may lose them, though never that a key was made or deleted. Everything else is durable when `write` answers.
    pub lazy_prefixes: Vec<String>,
}

impl Config {
    /// Five minutes or 32 MiB of history; renewals of node leases are lazy.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            history: Duration::from_secs(300),
            history_bytes: 32 << 20,
            lazy_prefixes: vec!["/registry/leases.coordination.k8s.io/kube-node-lease/".to_owned()],
        }
    }
}

/// Makes the final bytes once the revision is known. Must be quick and must not block: it runs under the sequence lock.
pub type Finish = Box<dyn FnOnce(u64) -> Bytes + Send>;

/// One change of a transaction. A key may appear once in a transaction; all expectations are checked against the state
/// before it.
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
    /// Another process has the database open.
    #[error("the database {} is in use by another mini (process {pid}); stop that one first, or give this one its own data directory", path.display())]
    InUse { path: PathBuf, pid: String },
    #[error("the database {} is damaged ({cause}); stop mini, move the file away and put a backup in its place, or begin anew with `mini reset`", path.display())]
    Damaged { path: PathBuf, cause: String },
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

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// Ends the writer thread when the last clone goes; `Store::close` does it in the open.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

/// What callers, the writer thread and watchers share.
struct Shared {
    sequence: Mutex<Sequence>,
    /// Wakes the writer thread: the sequence has work or is closing.
    work: Condvar,
    committed: RwLock<Committed>,
    /// True once the writer thread has flushed and closed the database.
    closed: watch::Sender<bool>,
    lazy_prefixes: Vec<String>,
    /// The last commit to the disk failed.
    failing: AtomicBool,
    #[cfg(test)]
    fail_next_commit: AtomicBool,
}

impl Shared {
    fn begin_close(&self) {
        self.sequence.lock().closing = true;
        self.work.notify_one();
    }
}

impl Store {
    /// Opens or makes the database, reads the current state into memory and starts the writer thread.
    ///
    /// # Errors
    /// `InUse` when another process has it, `Damaged` when it cannot be read, else `Database`.
    pub fn open(config: Config) -> Result<Self, Error> {
        let (log, recovered) = log::Log::open(&config.path)?;
        let shared = Arc::new(Shared {
            sequence: Mutex::new(Sequence::new(recovered.state.clone(), recovered.revision)),
            work: Condvar::new(),
            committed: RwLock::new(Committed::new(
                recovered.state,
                recovered.revision,
                config.history,
                config.history_bytes,
            )),
            closed: watch::Sender::new(false),
            lazy_prefixes: config.lazy_prefixes,
            failing: AtomicBool::new(false),
            #[cfg(test)]
            fail_next_commit: AtomicBool::new(false),
        });
        let of_writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer::run(&of_writer, log))
            .map_err(|error| Error::Database(format!("its writer thread does not start: {error}")))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Applies all of `ops` or none, under one revision, and answers once they are durable (lazy keys: once published).
    /// The entries are in the order of the operations.
    ///
    /// # Errors
    /// `Exists` or `Changed` when an expectation does not hold; `Database` when the commit failed, and then nothing of
    /// it was applied; `Closed`.
    pub async fn write(&self, ops: Vec<Op>) -> Result<Vec<Entry>, Error> {
        let answer = {
            let shared = &self.handle.shared;
            let (reply, answer) = oneshot::channel();
            let first = shared.sequence.lock().accept(ops, &shared.lazy_prefixes, reply)?;
            if first {
                shared.work.notify_one();
            }
            answer
        };
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// The newest committed revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.handle.shared.committed.read().revision()
    }

    /// The newest committed state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.handle.shared.committed.read().snapshot()
    }

    /// The state as it was at `revision`, if history still reaches back so far.
    ///
    /// # Errors
    /// `Compacted` or `Future`.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Error> {
        let committed = &self.handle.shared.committed;
        // Undoing takes time, and writers wait for this lock.
        let past = match committed.read().past(revision)? {
            Past::Known(snapshot) => return Ok(snapshot),
            Past::Undone(past) => past,
        };
        let snapshot = past.undo();
        committed.read().keep(&snapshot);
        Ok(snapshot)
    }

    /// Whether writes are taken, and the last one that had to be durable was.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let shared = &self.handle.shared;
        !shared.failing.load(Ordering::Relaxed) && !shared.sequence.lock().closing
    }

    /// Follows every change of keys that start with `prefix`, from the first one after revision `after`, without gap or
    /// duplicate.
    ///
    /// # Errors
    /// `Compacted` when history no longer reaches back so far, `Future` when `after` was not issued yet, `Closed`.
    pub fn watch(&self, prefix: &str, after: u64) -> Result<Watcher, Error> {
        if *self.handle.shared.closed.borrow() {
            return Err(Error::Closed);
        }
        Watcher::new(&self.handle.shared, prefix, after)
    }

    /// Refuses new writes, commits what was accepted along with all lazy writes, and closes the database. Watchers end.
    pub async fn close(&self) {
        let mut closed = self.handle.shared.closed.subscribe();
        self.handle.shared.begin_close();
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

#[cfg(test)]
mod tests;
