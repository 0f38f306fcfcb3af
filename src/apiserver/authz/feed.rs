//! Keeping a cache at the store's committed head without a task of its own.
//!
//! A cache that is asked calls [`Feed::drain`] first, so it has seen every write acknowledged before the question.

use futures::FutureExt;
use mini_store::{Entry, EventKind, Store, Watcher};

/// What a cache is told.
pub(crate) enum Change<'a> {
    /// Forget everything: the contents follow anew.
    Reset,
    Put(&'a Entry),
    Delete(&'a str),
}

/// The changes below one key prefix.
pub(crate) struct Feed {
    prefix: &'static str,
    watcher: Option<Watcher>,
}

impl Feed {
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, watcher: None }
    }

    pub(crate) fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Applies everything committed since the last call. False if nothing was.
    pub(crate) fn drain(&mut self, store: &Store, mut apply: impl FnMut(Change<'_>)) -> bool {
        let mut changed = false;
        if let Some(watcher) = &mut self.watcher {
            loop {
                // Unconstrained: a task that has used up its budget would otherwise be told that nothing has happened.
                match tokio::task::unconstrained(watcher.next()).now_or_never() {
                    Some(Some(event)) => {
                        changed = true;
                        match event.kind {
                            EventKind::Put => apply(Change::Put(&event.entry)),
                            EventKind::Delete => apply(Change::Delete(&event.entry.key)),
                        }
                    }
                    None => return changed,
                    // History has moved on without us.
                    Some(None) => break,
                }
            }
        }
        let snapshot = store.snapshot();
        apply(Change::Reset);
        for entry in snapshot.range(self.prefix, None) {
            apply(Change::Put(&entry));
        }
        self.watcher = store.watch(self.prefix, snapshot.revision()).ok();
        true
    }
}
