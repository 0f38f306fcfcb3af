//! All names of the cluster, by namespace and Service, and all addresses that lead back to names.
//!
//! Invariant: what a lookup returns was derived when the object changed; a query never walks objects.

use super::facts::{Service, Slice};
use super::names::Names;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A namespace and a name in it.
pub(super) type Key = (String, String);

/// The name an address leads back to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pointer {
    pub(super) namespace: String,
    pub(super) service: String,
    /// The endpoint's label; `None` stands for the Service itself.
    pub(super) host: Option<String>,
}

#[derive(Default)]
struct Entry {
    service: Option<Service>,
    slices: BTreeMap<String, Slice>,
    names: Names,
}

#[derive(Default)]
pub(super) struct Index {
    namespaces: HashSet<String>,
    services: HashMap<String, HashMap<String, Entry>>,
    /// Which Service each slice belongs to.
    slices: HashMap<Key, String>,
    reverse: HashMap<IpAddr, Vec<Pointer>>,
    serial: u32,
}

impl Index {
    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains(namespace)
    }

    /// The names of a Service that resolves, or that has endpoints with names.
    pub(super) fn names(&self, namespace: &str, service: &str) -> Option<&Names> {
        let entry = self.services.get(namespace)?.get(service)?;
        entry.names.exist().then_some(&entry.names)
    }

    pub(super) fn pointers(&self, address: IpAddr) -> Option<&[Pointer]> {
        self.reverse.get(&address).map(Vec::as_slice)
    }

    /// Grows with each change.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = Key> {
        self.namespaces.iter().map(|name| (String::new(), name.clone()))
    }

    pub(super) fn services(&self) -> impl Iterator<Item = Key> {
        self.services.iter().flat_map(|(namespace, services)| {
            let known = services.iter().filter(|(_, entry)| entry.service.is_some());
            known.map(|(name, _)| (namespace.clone(), name.clone()))
        })
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = Key> {
        self.slices.keys().cloned()
    }

    pub(super) fn set_namespace(&mut self, name: &str, exists: bool) {
        let changed = if exists { self.namespaces.insert(name.to_owned()) } else { self.namespaces.remove(name) };
        if changed {
            self.touch();
        }
    }

    /// `None` once the Service is gone.
    pub(super) fn set_service(&mut self, (namespace, name): &Key, service: Option<Service>) {
        let entry = self.services.entry(namespace.clone()).or_default().entry(name.clone()).or_default();
        let changed = entry.service != service;
        entry.service = service;
        if changed {
            self.derive(namespace, name);
        }
    }

    /// `None` once the slice is gone, or belongs to no Service.
    pub(super) fn set_slice(&mut self, key: &Key, slice: Option<Slice>) {
        let (namespace, name) = key;
        let before = match &slice {
            Some(slice) => self.slices.insert(key.clone(), slice.service.clone()),
            None => self.slices.remove(key),
        };
        let now = slice.as_ref().map(|slice| slice.service.clone());
        if let Some(before) = before.filter(|before| Some(before) != now.as_ref())
            && let Some(entry) = self.services.get_mut(namespace).and_then(|services| services.get_mut(&before))
        {
            entry.slices.remove(name);
            self.derive(namespace, &before);
        }
        if let (Some(slice), Some(service)) = (slice, now) {
            let entry = self.services.entry(namespace.clone()).or_default().entry(service.clone()).or_default();
            if entry.slices.get(name) != Some(&slice) {
                entry.slices.insert(name.clone(), slice);
                self.derive(namespace, &service);
            }
        }
    }

    /// Derives a Service's names anew, and with them the way back from their addresses.
    fn derive(&mut self, namespace: &str, name: &str) {
        self.touch();
        let Some(services) = self.services.get_mut(namespace) else { return };
        let Some(entry) = services.get_mut(name) else { return };
        let fresh = entry.service.as_ref().map(|service| Names::of(service, entry.slices.values()));
        let stale = std::mem::replace(&mut entry.names, fresh.unwrap_or_default());
        for (address, _) in &stale.reverse {
            let Some(pointers) = self.reverse.get_mut(address) else { continue };
            pointers.retain(|pointer| pointer.namespace != namespace || pointer.service != name);
            if pointers.is_empty() {
                self.reverse.remove(address);
            }
        }
        for (address, host) in &entry.names.reverse {
            let pointer = Pointer { namespace: namespace.to_owned(), service: name.to_owned(), host: host.clone() };
            self.reverse.entry(*address).or_default().push(pointer);
        }
        if entry.service.is_none() && entry.slices.is_empty() {
            services.remove(name);
            if services.is_empty() {
                self.services.remove(namespace);
            }
        }
    }

    fn touch(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Serial numbers wrap; the time is only a good start that grows over restarts.
        let now = u32::try_from(now & u64::from(u32::MAX)).unwrap_or_default();
        self.serial = now.max(self.serial.wrapping_add(1));
    }
}
