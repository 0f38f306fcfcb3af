//! The service proxy: Services and EndpointSlices become one nftables table, kept current by small transactions.
//!
//! Sources (caches) → [`service`] (one Service and its slices, as this room sees them) → [`render`] (their chains and map
//! elements) → [`ruleset`] (the whole table, and the difference between two of them) → `nft`.
//! Invariant: what is in the kernel is exactly the last ruleset that was applied; after any failure, and whenever
//! somebody else touched the table, it is replaced whole. An idle proxy uses no CPU: it has no timers.

mod conntrack;
mod disturbance;
mod render;
mod ruleset;
mod service;

use crate::{Config, firewall, ipam, link, nft};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mini_client::{Caches, CancellationToken, Change, Subscription};
use mini_sys::listeners::Listeners;
use mini_telemetry::Component;
use ruleset::{Fragment, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long changes are gathered once one came: a Service and its slices are written within this.
const GATHER: Duration = Duration::from_millis(5);
/// Between attempts while `nft` refuses.
const RETRY: Duration = Duration::from_secs(2);

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The proxy's nftables table.
pub(crate) fn table(config: &Config) -> String {
    ruleset::table(config)
}

/// Namespace and name of a Service.
type Key = (String, String);

/// Forgets the connections of a UDP host port; best effort, for the plugin.
pub(crate) fn forget_udp_port(port: u16) {
    conntrack::forget(&BTreeMap::from([((None, port), BTreeSet::new())]));
}

/// Starts the proxy; it runs until `cancel`. The rules stay: pods go on when `mini` stops.
pub fn spawn(config: Config, caches: Caches, component: Component, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let proxy = Proxy {
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            fragments: BTreeMap::new(),
            applied: None,
            config,
            component,
        };
        tokio::select! {
            () = proxy.run(&caches) => {}
            () = cancel.cancelled() => {}
        }
    })
}

struct Proxy {
    config: Config,
    component: Component,
    services: BTreeMap<Key, Arc<Service>>,
    /// The slices of each Service, by their own name.
    slices: BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    fragments: BTreeMap<Key, Fragment>,
    /// What is in the kernel; `None` when that is not known.
    applied: Option<Ruleset>,
}

impl Proxy {
    async fn run(mut self, caches: &Caches) {
        let (service_cache, slice_cache) = (caches.of::<Service>(), caches.of::<EndpointSlice>());
        self.component.waiting("for the API server to list Services and EndpointSlices");
        service_cache.synced().await;
        slice_cache.synced().await;
        let (mut services, mut slices) = (service_cache.subscribe(), slice_cache.subscribe());
        let mut disturbances = disturbance::Watch::open([self.config.table.clone(), ruleset::table(&self.config)]);
        loop {
            let mut dirty = BTreeSet::new();
            self.drain(&mut services, &mut slices, &mut dirty);
            self.render(&dirty);
            self.apply().await;
            // Waits for work: a change, a disturbance, or the next attempt.
            let failed = self.applied.is_none();
            tokio::select! {
                change = services.next() => {
                    let Some(change) = change else { return };
                    self.take_service(&change, &mut dirty);
                    tokio::time::sleep(GATHER).await;
                }
                change = slices.next() => {
                    let Some(change) = change else { return };
                    self.take_slice(&change, &mut dirty);
                    tokio::time::sleep(GATHER).await;
                }
                () = disturbances.next() => self.heal().await,
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            self.render(&dirty);
        }
    }

    fn drain(
        &mut self,
        services: &mut Subscription<Service>,
        slices: &mut Subscription<EndpointSlice>,
        dirty: &mut BTreeSet<Key>,
    ) {
        while let Some(change) = services.try_next() {
            self.take_service(&change, dirty);
        }
        while let Some(change) = slices.try_next() {
            self.take_slice(&change, dirty);
        }
    }

    fn take_service(&mut self, change: &Change<Service>, dirty: &mut BTreeSet<Key>) {
        let service = change.object();
        let metadata = &service.metadata;
        let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        match change {
            Change::Deleted(_) => drop(self.services.remove(&key)),
            _ => drop(self.services.insert(key.clone(), service.clone())),
        }
        dirty.insert(key);
    }

    fn take_slice(&mut self, change: &Change<EndpointSlice>, dirty: &mut BTreeSet<Key>) {
        // The label may change, though nobody does that: the old owner loses the slice first.
        if let Some(old) = change.old() {
            self.put_slice(old, false, dirty);
        }
        self.put_slice(change.object(), !matches!(change, Change::Deleted(_)), dirty);
    }

    fn put_slice(&mut self, slice: &Arc<EndpointSlice>, present: bool, dirty: &mut BTreeSet<Key>) {
        let metadata = &slice.metadata;
        let Some(owner) = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else { return };
        let key = (metadata.namespace.clone().unwrap_or_default(), owner.clone());
        let name = metadata.name.clone().unwrap_or_default();
        let slices = self.slices.entry(key.clone()).or_default();
        if present {
            slices.insert(name, slice.clone());
        } else {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        dirty.insert(key);
    }

    fn render(&mut self, dirty: &BTreeSet<Key>) {
        for key in dirty {
            let fragment = self.services.get(key).map(|service| {
                let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values).map(Arc::as_ref);
                render::fragment(&service::ports(service, slices), &self.config)
            });
            match fragment {
                Some(fragment) => drop(self.fragments.insert(key.clone(), fragment)),
                None => drop(self.fragments.remove(key)),
            }
        }
    }

    /// Brings the kernel from what it has to what it should have.
    async fn apply(&mut self) {
        let wanted = Ruleset::merge(self.fragments.values());
        let before = self.applied.take();
        if let Some(before) = &before {
            let Some(text) = before.difference(&wanted, &self.config) else {
                self.applied = Some(wanted);
                return;
            };
            match nft::apply(text).await {
                Ok(()) => return self.settle(Some(before), wanted).await,
                Err(error) => tracing::info!(%error, "the services' table is not as it was left; replacing it"),
            }
        }
        match nft::apply(wanted.whole(&self.config)).await {
            Ok(()) => self.settle(before.as_ref(), wanted).await,
            // `applied` stays unknown: the next attempt replaces the table.
            Err(error) => self.component.failed(format!("the rules of Services cannot be set: {error}")),
        }
    }

    async fn settle(&mut self, before: Option<&Ruleset>, applied: Ruleset) {
        self.component.ready();
        follow(before, &applied).await;
        self.applied = Some(applied);
    }

    /// Somebody else changed nftables: their firewall may stop pods now, and our tables may be gone.
    async fn heal(&mut self) {
        firewall::open(&self.config.bridge, &self.config.instance).await;
        let listing = tokio::task::spawn_blocking(|| nft::run(&["list", "tables"], "")).await;
        let Ok(Ok(listing)) = listing else { return };
        let present = |table: &str| listing.lines().any(|line| line == format!("table ip {table}"));
        if !present(&self.config.table) {
            tracing::warn!("another program deleted the pods' nftables table; putting it back");
            if let Err(error) = restore_base(&self.config).await {
                tracing::warn!(%error, "the pods' nftables table cannot be put back");
            }
        }
        if !present(&ruleset::table(&self.config)) {
            tracing::warn!("another program deleted the services' nftables table; putting it back");
            self.applied = None;
        }
    }
}

async fn restore_base(config: &Config) -> Result<(), crate::Error> {
    let leases = ipam::Pool::new(config.ipam_dir(), config.pod_cidr).leases()?;
    let links = link::Links::open()?;
    let Some(bridge) = links.find(&config.bridge).await? else { return Ok(()) };
    let present = links.ports_of(bridge.index).await?;
    let held = |lease: &ipam::Lease| present.contains(&link::veth_name(&lease.container, &lease.interface));
    let leases: Vec<_> = leases.into_iter().filter(|(_, lease)| held(lease)).collect();
    Ok(nft::apply(nft::base(config, &leases)).await?)
}

/// What follows a change of rules: UDP flows to endpoints that are gone are forgotten, so that the next datagram finds a
/// new one; and a node port that a local program listens on is named, because that program hears nothing any more.
async fn follow(before: Option<&Ruleset>, after: &Ruleset) {
    let moved = after.moved_udp(before);
    let fresh = after.new_node_ports(before);
    if moved.is_empty() && fresh.is_empty() {
        return;
    }
    let done = tokio::task::spawn_blocking(move || {
        if !moved.is_empty() {
            conntrack::forget(&moved);
        }
        if fresh.is_empty() {
            return;
        }
        let listeners = Listeners::read();
        for (protocol, port) in fresh {
            if let Some(program) = listeners.on(&protocol, port) {
                tracing::warn!(%protocol, port, "a Service's node port takes the port from {program}, which listens on it");
            }
        }
    });
    let _ = done.await;
}
