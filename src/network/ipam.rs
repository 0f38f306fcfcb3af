//! Leases of pod addresses: one small file under one lock, replaced whole.
//!
//! Addresses go round: a released one is not given out again before all others were, so that caches elsewhere (ARP,
//! connection tracking, clients' DNS) forget its last user.

use crate::address;
use crate::ports::Mapping;
use ipnet::Ipv4Net;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("all addresses of the pod range {0} are in use")]
    Exhausted(Ipv4Net),
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) container: String,
    pub(crate) interface: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<Mapping>,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// The address given out last.
    last: Option<Ipv4Addr>,
    leases: BTreeMap<Ipv4Addr, Lease>,
}

/// The pool of one pod range.
pub(crate) struct Pool {
    directory: PathBuf,
    range: Ipv4Net,
}

impl Pool {
    pub(crate) fn new(directory: PathBuf, range: Ipv4Net) -> Self {
        Self { directory, range }
    }

    /// The address for this container's interface: the one it has, or a new one.
    pub(crate) fn lease(&self, wanted: Lease) -> Result<Ipv4Addr, Error> {
        self.change(|state| {
            let same = |lease: &Lease| lease.container == wanted.container && lease.interface == wanted.interface;
            let had = state.leases.iter().find(|(_, lease)| same(lease)).map(|(address, _)| *address);
            let address = match had {
                Some(address) => address,
                None => self.next(state).ok_or(Error::Exhausted(self.range))?,
            };
            state.last = if had.is_some() { state.last } else { Some(address) };
            state.leases.insert(address, wanted);
            Ok(address)
        })
    }

    /// The lease of this container's interface, if it has one.
    pub(crate) fn find(&self, container: &str, interface: &str) -> Result<Option<(Ipv4Addr, Lease)>, Error> {
        let same = |lease: &Lease| lease.container == container && lease.interface == interface;
        Ok(self.leases()?.into_iter().find(|(_, lease)| same(lease)))
    }

    /// Gives the address back, if it is still this container's.
    pub(crate) fn release(&self, address: Ipv4Addr, container: &str) -> Result<(), Error> {
        self.change(|state| {
            if state.leases.get(&address).is_some_and(|lease| lease.container == container) {
                state.leases.remove(&address);
            }
            Ok(())
        })
    }

    pub(crate) fn leases(&self) -> Result<BTreeMap<Ipv4Addr, Lease>, Error> {
        Ok(self.read()?.leases)
    }

    /// The first free address after the one given out last, round the range; never the network's own, the gateway's or
    /// the broadcast address.
    fn next(&self, state: &State) -> Option<Ipv4Addr> {
        let first = u32::from(address::gateway(self.range)).checked_add(1)?;
        let end = u32::from(self.range.broadcast());
        let count = end.checked_sub(first).filter(|count| *count > 0)?;
        let start = match state.last.map(u32::from) {
            Some(last) if (first..end).contains(&last) => last - first + 1,
            _ => 0,
        };
        (0..count)
            .map(|step| Ipv4Addr::from(first + (start + step) % count))
            .find(|address| !state.leases.contains_key(address))
    }

    fn path(&self) -> PathBuf {
        self.directory.join("leases.json")
    }

    fn read(&self) -> Result<State, Error> {
        let path = self.path();
        match fs::read(&path) {
            // A file torn by a power failure: its pods are gone with the power.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source: std::io::Error| Error::File { path, source }
        };
        fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        let lock_path = self.directory.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(&lock_path)(error.into()))?;
        let mut state = self.read()?;
        let answer = change(&mut state)?;
        let path = self.path();
        let fresh = self.directory.join("leases.json.new");
        fs::write(&fresh, serde_json::to_vec(&state).unwrap_or_default()).map_err(failed(&fresh))?;
        fs::rename(&fresh, &path).map_err(failed(&path))?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(container: &str) -> Lease {
        Lease { container: container.to_owned(), interface: "eth0".to_owned(), ports: Vec::new() }
    }

    fn pool(range: &str) -> (tempfile::TempDir, Pool) {
        let directory = tempfile::tempdir().unwrap();
        let pool = Pool::new(directory.path().join("ipam"), range.parse().unwrap());
        (directory, pool)
    }

    #[test]
    fn a_released_address_comes_back_last() {
        let (_directory, pool) = pool("10.9.0.0/29");
        let first = pool.lease(lease("a")).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 9, 0, 2));
        pool.release(first, "a").unwrap();
        let later: Vec<_> = ["b", "c", "d", "e", "f"].map(|name| pool.lease(lease(name)).unwrap().octets()[3]).into();
        assert_eq!(later, [3, 4, 5, 6, 2]);
        assert!(matches!(pool.lease(lease("g")), Err(Error::Exhausted(_))));
    }

    #[test]
    fn asking_again_gives_the_same_address() {
        let (_directory, pool) = pool("10.9.0.0/24");
        let address = pool.lease(lease("a")).unwrap();
        assert_eq!(pool.lease(lease("a")).unwrap(), address);
        assert_eq!(pool.find("a", "eth0").unwrap(), Some((address, lease("a"))));
        pool.release(address, "somebody else").unwrap();
        assert!(pool.find("a", "eth0").unwrap().is_some());
    }

    #[test]
    fn callers_at_once_never_share_an_address() {
        let (_directory, pool) = pool("10.9.0.0/24");
        let addresses: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let pool = &pool;
            let callers: Vec<_> =
                (0..40).map(|n| scope.spawn(move || pool.lease(lease(&n.to_string())).unwrap())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(addresses.len(), 40);
    }

    #[test]
    fn a_torn_file_starts_afresh() {
        let (_directory, pool) = pool("10.9.0.0/24");
        pool.lease(lease("a")).unwrap();
        fs::write(pool.path(), "{\"las").unwrap();
        assert!(pool.leases().unwrap().is_empty());
        pool.lease(lease("b")).unwrap();
    }
}
