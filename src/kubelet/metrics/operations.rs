//! How often containerd was asked for what, how long that took and how often it failed.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
}

/// Counts by upstream's names of the operations.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<BTreeMap<&'static str, Count>>);

impl Operations {
    pub(crate) fn count(&self, operation: &'static str, took: Duration, failed: bool) {
        let mut counts = self.0.lock();
        let count = counts.entry(operation).or_default();
        count.calls += 1;
        count.errors += u64::from(failed);
        count.seconds += took.as_secs_f64();
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, Count> {
        self.0.lock().clone()
    }
}
