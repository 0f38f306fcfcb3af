//! Leases of pod addresses: one small file for each, named by it, made under one lock.
//!
//! Giving an address back deletes its file and writes nothing: a pod must be able to end on a full disk.
//!
//! Addresses go round: a released one is not given out again before all others were, so that caches elsewhere (ARP,
//! connection tracking, clients' DNS) forget its last user.

use crate::address;
use crate::ports::Mapping;
use ipnet::Ipv4Net;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

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

/// The file that names the address given out last.
const LAST: &str = "last";

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
        fs::create_dir_all(&self.directory).map_err(failed(&self.directory))?;
        let _lock = self.lock(true)?;
        let leases = self.leases()?;
        let same = |lease: &Lease| lease.container == wanted.container && lease.interface == wanted.interface;
        let had = leases.iter().find(|(_, lease)| same(lease)).map(|(address, _)| *address);
        let address = match had {
            Some(address) => address,
            None => self.next(&leases).ok_or(Error::Exhausted(self.range))?,
        };
        let (path, fresh) = (self.directory.join(address.to_string()), self.directory.join("new"));
        let text = serde_json::to_vec(&wanted).unwrap_or_default();
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(failed(&path))?;
        if had.is_none() {
            // Without it an address comes back sooner than it should; no reason to fail.
            let _ = fs::write(self.directory.join(LAST), address.to_string());
        }
        Ok(address)
    }

    /// The lease of this container's interface, if it has one.
    pub(crate) fn find(&self, container: &str, interface: &str) -> Result<Option<(Ipv4Addr, Lease)>, Error> {
        let same = |lease: &Lease| lease.container == container && lease.interface == interface;
        Ok(self.leases()?.into_iter().find(|(_, lease)| same(lease)))
    }

    /// Gives the address back, if it is still this container's.
    pub(crate) fn release(&self, address: Ipv4Addr, container: &str) -> Result<(), Error> {
        let _lock = match self.lock(false) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            lock => lock?,
        };
        let path = self.directory.join(address.to_string());
        if read(&path)?.is_some_and(|lease| lease.container == container) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        Ok(())
    }

    pub(crate) fn leases(&self) -> Result<BTreeMap<Ipv4Addr, Lease>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed(&self.directory))?,
        };
        let mut leases = BTreeMap::new();
        for entry in entries.flatten() {
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(lease) = read(&entry.path())? {
                leases.insert(address, lease);
            }
        }
        Ok(leases)
    }

    /// The first free address after the one given out last, round the range; never the network's own, the gateway's or
    /// the broadcast address.
    fn next(&self, leases: &BTreeMap<Ipv4Addr, Lease>) -> Option<Ipv4Addr> {
        let first = u32::from(address::gateway(self.range)).checked_add(1)?;
        let end = u32::from(self.range.broadcast());
        let count = end.checked_sub(first).filter(|count| *count > 0)?;
        let last = fs::read_to_string(self.directory.join(LAST)).ok().and_then(|text| text.parse::<Ipv4Addr>().ok());
        let start = match last.map(u32::from) {
            Some(last) if (first..end).contains(&last) => last - first + 1,
            _ => 0,
        };
        (0..count)
            .map(|step| Ipv4Addr::from(first + (start + step) % count))
            .find(|address| !leases.contains_key(address))
    }

    fn lock(&self, create: bool) -> Result<File, Error> {
        let path = self.directory.join("lock");
        let lock = OpenOptions::new().read(true).write(create).create(create).truncate(false).open(&path);
        let lock = lock.map_err(failed(&path))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(&path)(error.into()))?;
        Ok(lock)
    }
}

/// `None` when there is none, or a file torn by a power failure: its pod is gone with the power.
fn read(path: &Path) -> Result<Option<Lease>, Error> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(path)(source)),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
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
        let address = pool.lease(lease("a")).unwrap();
        fs::write(pool.directory.join(address.to_string()), "{\"con").unwrap();
        assert!(pool.leases().unwrap().is_empty());
        pool.lease(lease("b")).unwrap();
        assert_eq!(pool.leases().unwrap().len(), 1);
    }
}
