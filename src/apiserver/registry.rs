//! The rows that are served now: an immutable table, replaced whole when a definition of a custom kind changes.

use mini_resources::{Registry, Resource};
use std::sync::Arc;
use tokio::sync::watch;

/// Shared by all requests; each works with the table of the moment it came.
pub struct Live {
    builtin: Registry,
    current: watch::Sender<Arc<Registry>>,
}

impl Default for Live {
    fn default() -> Self {
        let builtin = Registry::builtin();
        Self { current: watch::Sender::new(Arc::new(builtin.clone())), builtin }
    }
}

impl Live {
    /// The table as it is now.
    #[must_use]
    pub fn current(&self) -> Arc<Registry> {
        self.current.borrow().clone()
    }

    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.current.borrow().get(group, version, plural)
    }

    /// The built-in kinds of a group.
    pub(crate) fn builtin(&self, group: &str) -> impl Iterator<Item = &Arc<Resource>> {
        self.builtin.iter().filter(move |row| row.group == group)
    }

    /// Serves these custom kinds and no others.
    pub(crate) fn publish(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        self.current.send_replace(Arc::new(self.builtin.with(custom)));
    }

    /// Follows the tables, beginning behind the one that is current.
    pub(crate) fn follow(&self) -> Following {
        Following(self.current.subscribe())
    }
}

/// Sees every change of the table.
pub(crate) struct Following(watch::Receiver<Arc<Registry>>);

impl Following {
    /// Waits until `resource` is no longer served, or no longer as it was; built-in kinds always are.
    pub(crate) async fn gone(&mut self, resource: &Resource) {
        let Some(kind) = &resource.custom else { return std::future::pending().await };
        loop {
            let same = {
                let registry = self.0.borrow_and_update();
                let row = registry.get(&resource.group, &resource.version, &resource.plural);
                row.and_then(|row| row.custom.clone()).is_some_and(|other| other.identity == kind.identity)
            };
            if !same || self.0.changed().await.is_err() {
                return;
            }
        }
    }
}
