//! A view of all objects at one revision.

use crate::Entry;
use crate::pending::State;
use std::ops::Bound;

/// The state at one revision. Cheap to clone and unmoved by later writes.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) state: State,
    pub(crate) revision: u64,
}

impl Snapshot {
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.state.get(key).cloned()
    }

    /// Entries whose key starts with `prefix`, in key order, beginning behind the key `after` if one is given.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = Entry> + 'a {
        self.refs(prefix, after).cloned()
    }

    /// How many entries `range` has.
    #[must_use]
    pub fn count(&self, prefix: &str, after: Option<&str>) -> usize {
        self.refs(prefix, after).count()
    }

    fn refs<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Entry> + 'a {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.state
            .range::<(Bound<&str>, Bound<&str>), str>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }
}
