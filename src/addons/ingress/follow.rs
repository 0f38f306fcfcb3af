//! Keeps the route table in step with the cluster, and tells Ingresses where they are reached.

use super::build::{self, Built, Problem, World};
use super::certificates::{self, Keys};
use super::table::{Live, Table};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use kube::api::{Patch, PatchParams};
use mini_client::cache::{Cache, Kind};
use mini_client::{Caches, CancellationToken, Client, EventType, Recorder, Scope, reference};
use rustls::sign::CertifiedKey;
use serde_json::json;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Changes come in swarms, so tables are made this far apart.
const PAUSE: Duration = Duration::from_millis(50);
/// A status that could not be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Follower {
    client: Client,
    recorder: Recorder,
    /// Where Ingresses are reached; without it no status is written.
    address: Option<IpAddr>,
    live: Arc<Live>,
    ingresses: Cache<Ingress>,
    classes: Cache<IngressClass>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    /// Those with certificates only: others are none of our business.
    secrets: Cache<Secret>,
    keys: Keys,
    fallback: Arc<CertifiedKey>,
    /// Problems that were told: uid and sentence.
    told: HashSet<(String, String)>,
    changed: Arc<Notify>,
}

impl Follower {
    /// Starts to watch.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub(super) fn new(
        client: &Client,
        live: &Arc<Live>,
        address: Option<IpAddr>,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let caches = Caches::new(client.clone(), cancel.clone());
        let certificates = Scope { fields: Some("type=kubernetes.io/tls".to_owned()), ..Scope::default() };
        Ok(Self {
            client: client.clone(),
            recorder: Recorder::new(client.clone(), "mini-ingress", ""),
            address,
            live: live.clone(),
            ingresses: caches.of(),
            classes: caches.of(),
            services: caches.of(),
            slices: caches.of(),
            secrets: caches.scoped(certificates),
            keys: Keys::default(),
            fallback: certificates::self_signed()?,
            told: HashSet::new(),
            changed: Arc::default(),
        })
    }

    /// Resolves once the whole cluster has been seen.
    pub(super) async fn synced(&self) {
        tokio::join!(
            self.ingresses.synced(),
            self.classes.synced(),
            self.services.synced(),
            self.slices.synced(),
            self.secrets.synced()
        );
    }

    /// Makes the first table, then one after each change, for ever; `ready` is told of the first.
    pub(super) async fn run(mut self, ready: impl FnOnce()) {
        self.synced().await;
        announce(&self.ingresses, &self.changed);
        announce(&self.classes, &self.changed);
        announce(&self.services, &self.changed);
        announce(&self.slices, &self.changed);
        announce(&self.secrets, &self.changed);
        let mut ready = Some(ready);
        loop {
            let built = self.build();
            self.tell(&built.problems);
            self.live.store(built.table);
            if let Some(ready) = ready.take() {
                ready();
            }
            self.write_status(&built.served).await;
            tokio::time::sleep(PAUSE).await;
            self.changed.notified().await;
        }
    }

    fn build(&mut self) -> Built {
        let world = World {
            ingresses: self.ingresses.list(),
            classes: self.classes.list(),
            services: self.services.list(),
            slices: self.slices.list(),
            secrets: self.secrets.list(),
        };
        build::build(&world, &mut self.keys, &self.fallback)
    }

    /// Events for problems that were not there before.
    fn tell(&mut self, problems: &[Problem]) {
        let mut present = HashSet::new();
        for problem in problems {
            let key = (problem.ingress.metadata.uid.clone().unwrap_or_default(), problem.message.clone());
            if !self.told.contains(&key) {
                let object = reference(problem.ingress.as_ref());
                self.recorder.event(&object, EventType::Warning, problem.reason, problem.message.clone());
            }
            present.insert(key);
        }
        self.told = present;
    }

    /// Writes the address where it is not there yet.
    async fn write_status(&self, served: &[Arc<Ingress>]) {
        let Some(address) = self.address.map(|address| address.to_string()) else { return };
        for ingress in served {
            let status =
                ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|b| b.ingress.as_deref());
            let there = matches!(status, Some([one]) if one.ip.as_ref() == Some(&address) && one.hostname.is_none());
            if there || ingress.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
            let name = ingress.metadata.name.as_deref().unwrap_or_default();
            let api: Api<Ingress> = Api::namespaced(self.client.clone(), namespace);
            let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
            match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {}
                // It was deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    tracing::warn!(namespace, name, %error, "the address could not be written");
                    let changed = self.changed.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(RETRY).await;
                        changed.notify_one();
                    });
                    return;
                }
            }
        }
    }
}

/// Says when a cache changes, until it is gone.
fn announce<K: Kind>(cache: &Cache<K>, changed: &Arc<Notify>) {
    let (mut changes, changed) = (cache.subscribe(), changed.clone());
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            changed.notify_one();
        }
    });
}

/// A table for the time before the cluster has been seen.
pub(super) fn nothing() -> Arc<Live> {
    Arc::new(Live::new(Table::default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_client::testing::FakeApi;
    use serde_json::Value;

    fn ingress(spec: &Value) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"namespace": "a", "name": "web"},
               "spec": spec})
    }

    async fn until(live: &Live, holds: impl Fn(&Table) -> bool) {
        for _ in 0..1000 {
            if holds(&live.load()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the table did not become as wished");
    }

    #[tokio::test]
    async fn the_table_follows_the_cluster() {
        let api = FakeApi::default();
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "mini"},
                           "spec": {"controller": build::CONTROLLER}});
        api.put(&class);
        let (live, cancel) = (nothing(), CancellationToken::new());
        let address = "192.0.2.1".parse().ok();
        let follower = Follower::new(&api.client(), &live, address, &cancel).unwrap();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let running = tokio::spawn(follower.run(move || {
            let _ = ready.send(());
        }));
        is_ready.await.unwrap();
        assert!(live.load().find("x.y", "/").is_none());

        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        api.put(&ingress(&json!({"ingressClassName": "mini", "defaultBackend": backend})));
        until(&live, |table| table.find("x.y", "/").is_some()).await;
        let wanted = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        api.until("ingresses", |all| all[0]["status"] == wanted).await;
        api.until("events", |all| all.iter().any(|e| e["message"] == "Service a/s does not exist")).await;

        api.put(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "a", "name": "s"},
                        "spec": {"ports": [{"port": 80}]}}));
        api.put(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "a", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "", "port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]}));
        until(&live, |table| table.find("x.y", "/").is_some_and(|hit| hit.route.backend.turn().count() == 1)).await;

        let writes = api.writes().iter().filter(|call| call.uri.contains("/status")).count();
        assert!((1..=2).contains(&writes), "{writes} writes of one status");
        api.remove("networking.k8s.io/v1", "ingresses", "a", "web");
        until(&live, |table| table.find("x.y", "/").is_none()).await;
        cancel.cancel();
        running.abort();
    }
}
