//! Questions about the rest of the world, put to other name servers.
//!
//! Invariant: an answer or a failure within [`PATIENCE`], at once when no server can be asked. A server that was silent
//! rests for some seconds, so that only the first to ask waits for it.

use super::cache::Cache;
use super::packet;
use super::upstream::{Ask, Upstream};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a client waits at most.
const PATIENCE: Duration = Duration::from_millis(1800);
/// After this long without an answer the next server is asked as well, or the same again: packets get lost.
const STEP: Duration = Duration::from_millis(600);
/// Servers asked for one question, counting repetitions.
const ATTEMPTS: usize = 3;

/// The servers that are asked at a time, and what they said.
#[derive(Default)]
struct Chosen {
    upstreams: Vec<Arc<Upstream>>,
    cache: Cache,
}

impl Chosen {
    fn of(addresses: &[SocketAddr]) -> Arc<Self> {
        let upstreams = addresses.iter().map(|address| Arc::new(Upstream::new(*address)));
        Arc::new(Self { upstreams: upstreams.collect(), cache: Cache::default() })
    }
}

#[derive(Default)]
pub(super) struct Forwarders(RwLock<Arc<Chosen>>);

impl Forwarders {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Self(RwLock::new(Chosen::of(addresses)))
    }

    /// Asks these from now on; true where they are others than before. In another network other answers may be right, so
    /// none is kept.
    pub(super) fn set(&self, addresses: &[SocketAddr]) -> bool {
        let mut chosen = self.0.write();
        let changed = !chosen.upstreams.iter().map(|upstream| upstream.address).eq(addresses.iter().copied());
        if changed {
            *chosen = Chosen::of(addresses);
        }
        changed
    }

    fn chosen(&self) -> Arc<Chosen> {
        self.0.read().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.read().upstreams.is_empty()
    }

    /// An answer that is known already, into `out`.
    pub(super) fn recall(&self, ask: Ask<'_>, out: &mut Vec<u8>) -> bool {
        let chosen = self.0.read();
        !chosen.upstreams.is_empty() && chosen.cache.get(&key(ask), out)
    }

    /// The answer of the first server that has one; else the last failure told. `own` are addresses that lead back here.
    pub(super) async fn ask(&self, ask: Ask<'_>, own: &[IpAddr]) -> Option<Vec<u8>> {
        let chosen = self.chosen();
        let usable = |upstream: &&Arc<Upstream>| !upstream.is_resting() && !own.contains(&upstream.address.ip());
        let usable: Vec<&Arc<Upstream>> = chosen.upstreams.iter().filter(usable).collect();
        let mut next = usable.iter().copied().cycle().take(ATTEMPTS.max(usable.len()));
        let (mut silent, mut dead) = (usable.clone(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        let mut running = FuturesUnordered::new();
        let mut failure = None;
        loop {
            // Who has answered once would say the same again.
            let more = next.find(|upstream| silent.iter().any(|other| Arc::ptr_eq(other, upstream)));
            let pause = if more.is_some() { (Instant::now() + STEP).min(deadline) } else { deadline };
            running.extend(more.map(|upstream| async move { (upstream, upstream.ask(ask).await) }));
            match timeout_at(pause, running.next()).await {
                Ok(Some((upstream, told))) => {
                    silent.retain(|other| !Arc::ptr_eq(other, upstream));
                    match told {
                        Ok(reply) if matches!(packet::code(&reply), 0 | 3) => {
                            chosen.cache.put(key(ask), &reply);
                            return Some(reply);
                        }
                        Ok(reply) => failure = Some(reply),
                        Err(_) => dead.push(upstream),
                    }
                }
                Ok(None) => break,
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        drop(running);
        for upstream in silent.into_iter().chain(dead) {
            upstream.rest();
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.probe().await });
        }
        failure
    }
}

fn key(ask: Ask<'_>) -> Vec<u8> {
    let mut key = packet::lower(ask.question);
    key.push(u8::from(ask.checking_disabled) << 2 | ask.edns.map_or(0, |dnssec| 1 + u8::from(dnssec)));
    key
}
