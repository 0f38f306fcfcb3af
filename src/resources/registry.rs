//! [`Registry`]: the rows by name, and the groups they make.

use crate::custom::version;
use crate::resource::Resource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An API group as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Preferred first.
    pub versions: Vec<String>,
    pub preferred: String,
}

/// All served kinds.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    rows: Vec<Arc<Resource>>,
    by_plural: BTreeMap<String, Vec<Arc<Resource>>>,
    by_kind: BTreeMap<String, Vec<Arc<Resource>>>,
}

impl Registry {
    /// The built-in kinds.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for row in crate::table::rows() {
            registry.insert(row);
        }
        registry
    }

    /// The rows that `keep` lets stay.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&Resource) -> bool) -> Self {
        let some = |rows: &[Arc<Resource>]| rows.iter().filter(|row| keep(row)).cloned().collect::<Vec<_>>();
        let map = |map: &BTreeMap<String, Vec<Arc<Resource>>>| {
            map.iter().map(|(name, rows)| (name.clone(), some(rows))).collect()
        };
        Self { rows: some(&self.rows), by_plural: map(&self.by_plural), by_kind: map(&self.by_kind) }
    }

    /// These rows and, behind them, those of custom kinds.
    #[must_use]
    pub fn with(&self, custom: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let mut registry = self.clone();
        custom.into_iter().for_each(|row| registry.add(row));
        registry
    }

    /// Adds a row at the end.
    pub fn insert(&mut self, row: Resource) {
        self.add(Arc::new(row));
    }

    fn add(&mut self, row: Arc<Resource>) {
        self.by_plural.entry(row.plural.clone()).or_default().push(Arc::clone(&row));
        self.by_kind.entry(row.kind.clone()).or_default().push(Arc::clone(&row));
        self.rows.push(row);
    }

    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_plural.get(plural)?.iter().find(|r| r.group == group && r.version == version).cloned()
    }

    #[must_use]
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        self.by_kind.get(kind)?.iter().find(|r| r.group == group && r.version == version).cloned()
    }

    /// The row in whose version objects of `resource` are stored.
    #[must_use]
    pub fn stored_as(&self, resource: &Resource) -> Option<Arc<Resource>> {
        self.rows.iter().find(|r| r.storage == resource.storage && !r.converts()).cloned()
    }

    /// Rows in the order of discovery.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter()
    }

    /// Groups in the order of discovery, the core group (empty name) first and those of custom kinds last.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        // Versions of custom kinds have an order of their own, behind those of built-in kinds.
        let custom = self.rows.iter().filter(|row| row.custom.is_some());
        let mut custom: Vec<&Arc<Resource>> = custom.collect();
        custom.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| version::compare(&a.version, &b.version)));
        for row in self.rows.iter().filter(|row| row.custom.is_none()).chain(custom) {
            match groups.iter_mut().find(|g| g.name == row.group) {
                Some(group) if group.versions.contains(&row.version) => {}
                Some(group) => group.versions.push(row.version.clone()),
                None => groups.push(Group {
                    name: row.group.clone(),
                    versions: vec![row.version.clone()],
                    preferred: row.version.clone(),
                }),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests;
