//! Who owns whom, by uid, as the watches tell it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::Uid;
use crate::served::Served;

pub(super) const ORPHAN: &str = "orphan";
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// As much of an object as collection needs.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) row: Arc<Served>,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Owners, and whether each waits for this object when deleted in the foreground.
    pub(super) owners: Vec<(Uid, bool)>,
    pub(super) deleting: bool,
    pub(super) orphan: bool,
    pub(super) foreground: bool,
}

impl Node {
    pub(super) fn of(row: &Arc<Served>, meta: &ObjectMeta) -> Self {
        let owners = meta.owner_references.iter().flatten();
        let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
        Self {
            row: row.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            owners: owners
                .map(|r: &OwnerReference| (Uid::from(r.uid.as_str()), r.block_owner_deletion == Some(true)))
                .collect(),
            deleting: meta.deletion_timestamp.is_some(),
            orphan: has(ORPHAN),
            foreground: has(FOREGROUND),
        }
    }

    /// Being deleted, and waiting for its dependents to go first.
    pub(super) fn waits(&self) -> bool {
        self.deleting && self.foreground
    }
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
    /// Kinds whose first list is still to come.
    unlisted: HashSet<String>,
}

impl Graph {
    pub(super) fn expect_row(&mut self, url: String) {
        self.unlisted.insert(url);
    }

    pub(super) fn get(&self, uid: &Uid) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn dependents(&self, uid: &Uid) -> Vec<(Uid, &Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| Some((uid.clone(), self.nodes.get(uid)?))).collect()
    }

    /// A kind's first list is in, or given up on. Once all are, everything suspicious is returned.
    pub(super) fn listed(&mut self, url: &str) -> Vec<Uid> {
        if !self.unlisted.remove(url) || !self.unlisted.is_empty() {
            return Vec::new();
        }
        self.nodes.iter().filter(|(_, node)| self.is_suspect(node)).map(|(uid, _)| uid.clone()).collect()
    }

    fn is_suspect(&self, node: &Node) -> bool {
        let far = |owner: &Node| !owner.namespace.is_empty() && owner.namespace != node.namespace;
        let unsound = |(uid, _): &(Uid, bool)| self.nodes.get(uid).is_none_or(|owner| owner.waits() || far(owner));
        (node.deleting && (node.orphan || node.foreground)) || node.owners.iter().any(unsound)
    }

    /// An object is there, in this state; returns what is to be looked at.
    pub(super) fn apply(&mut self, uid: Uid, node: Node) -> Vec<Uid> {
        let before = self.nodes.insert(uid.clone(), node.clone());
        let lost: Vec<Uid> = before
            .iter()
            .flat_map(|before| &before.owners)
            .filter(|(owner, _)| !node.owners.iter().any(|(still, _)| still == owner))
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in &lost {
            self.unlink(owner, &uid);
        }
        for (owner, _) in &node.owners {
            self.dependents.entry(owner.clone()).or_default().insert(uid.clone());
        }
        if !self.unlisted.is_empty() {
            return Vec::new();
        }
        let blocked = before.iter().flat_map(|before| &before.owners).filter(|(_, block)| *block);
        let unblocked = blocked.filter(|(owner, _)| node.owners.contains(&(owner.clone(), false)));
        let freed = lost.into_iter().chain(unblocked.map(|(owner, _)| owner.clone()));
        let mut suspects: Vec<Uid> = freed.filter(|owner| self.waits(owner)).collect();
        if node.waits() && !before.is_some_and(|before| before.waits()) {
            suspects.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        if self.is_suspect(&node) {
            suspects.push(uid);
        }
        suspects
    }

    /// An object is gone; returns what is to be looked at.
    pub(super) fn remove(&mut self, uid: &Uid) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        for (owner, _) in &node.owners {
            self.unlink(owner, uid);
        }
        let mut suspects: Vec<Uid> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        suspects.extend(node.owners.into_iter().map(|(owner, _)| owner).filter(|owner| self.waits(owner)));
        if self.unlisted.is_empty() { suspects } else { Vec::new() }
    }

    /// The uids of a kind that a full list did not hold.
    pub(super) fn missing(&self, row: &Arc<Served>, listed: &HashSet<Uid>) -> Vec<Uid> {
        let of_row = self.nodes.iter().filter(|(_, node)| Arc::ptr_eq(&node.row, row));
        of_row.map(|(uid, _)| uid.clone()).filter(|uid| !listed.contains(uid)).collect()
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn waits(&self, uid: &Uid) -> bool {
        self.nodes.get(uid).is_some_and(Node::waits)
    }
}
