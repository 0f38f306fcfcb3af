//! The writer thread: takes what was accepted, commits it in one go, publishes it, answers.
//!
//! Invariant: an answer follows the commit and the publication; batches are committed and published in revision order.

use crate::log::Log;
use crate::pending::{Batch, Transaction};
use crate::{Error, Shared};
use std::sync::atomic::Ordering;

/// Runs until the store closes.
pub(crate) fn run(shared: &Shared, mut log: Log) {
    // Also when this thread unwinds, nobody must wait for an answer that never comes.
    let _end = End(shared);
    while let Some(batch) = next_batch(shared) {
        commit(shared, &mut log, batch);
    }
    let revision = shared.committed.read().revision();
    if let Err(error) = log.close(revision) {
        tracing::error!(%error, "the database was not closed cleanly");
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut sequence = self.0.sequence.lock();
        sequence.closing = true;
        drop(sequence.take());
        drop(sequence);
        self.0.closed.send_replace(true);
    }
}

/// Waits for work; `None` when the store is closing and all work is done.
fn next_batch(shared: &Shared) -> Option<Batch> {
    let mut sequence = shared.sequence.lock();
    loop {
        if let Some(batch) = sequence.take() {
            return Some(batch);
        }
        if sequence.closing {
            return None;
        }
        shared.work.wait(&mut sequence);
    }
}

fn commit(shared: &Shared, log: &mut Log, mut batch: Batch) {
    // A batch of lazy writes alone neither writes nor syncs, as long as its revisions are reserved on disk.
    let durable = batch.transactions.iter().any(|transaction| !transaction.lazy) || !log.reserved(batch.revision);
    let changes = batch.transactions.iter().flat_map(|transaction| &transaction.changes);
    if durable {
        let committed = injected_failure(shared).and_then(|()| log.commit(changes, batch.revision));
        shared.failing.store(committed.is_err(), Ordering::Relaxed);
        if let Err(error) = committed {
            tracing::error!(%error, "a commit failed");
            fail(shared, batch, &error.to_string());
            return;
        }
    } else {
        log.defer(changes);
    }
    let watchers = shared.committed.write().publish(&mut batch);
    watchers.iter().for_each(|wake| wake.notify_waiters());
    for Transaction { answer, reply, .. } in batch.transactions {
        let _ = reply.send(Ok(answer));
    }
}

fn fail(shared: &Shared, batch: Batch, error: &str) {
    let state = shared.committed.read().state();
    let on_top = shared.sequence.lock().roll_back(state);
    for transaction in batch.transactions.into_iter().chain(on_top) {
        let _ = transaction.reply.send(Err(Error::Database(error.to_owned())));
    }
}

#[cfg(not(test))]
fn injected_failure(_: &Shared) -> rusqlite::Result<()> {
    Ok(())
}

#[cfg(test)]
fn injected_failure(shared: &Shared) -> rusqlite::Result<()> {
    match shared.fail_next_commit.swap(false, std::sync::atomic::Ordering::SeqCst) {
        true => Err(rusqlite::Error::InvalidQuery),
        false => Ok(()),
    }
}
