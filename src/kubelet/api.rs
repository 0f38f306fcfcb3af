//! [`Cluster`] over the real API: reads by GET, watches what pods refer to, writes statuses in the background.

mod status_writer;

use crate::agent::Wanted;
use crate::cluster::{Cluster, Error, Reference, Token, TokenSpec};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Secret, Service,
    ServiceAccount,
};
use kube::Api;
use kube::api::PostParams;
use mini_client::{Cache, CancellationToken, Client, EventType, Recorder, Scope};
use parking_lot::Mutex;
use serde_json::json;
use status_writer::StatusWriter;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc;

pub(crate) struct ApiCluster {
    client: Client,
    node: Cache<Node>,
    services: Cache<Service>,
    recorder: Recorder,
    statuses: StatusWriter,
    followed: Mutex<HashMap<Reference, Followed>>,
    wanted: mpsc::UnboundedSender<Wanted>,
    cancel: CancellationToken,
}

struct Followed {
    pods: Arc<Mutex<BTreeSet<String>>>,
    stop: CancellationToken,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ApiCluster {
    pub(crate) fn new(
        client: Client,
        node: Cache<Node>,
        services: Cache<Service>,
        name: &str,
        wanted: mpsc::UnboundedSender<Wanted>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), "kubelet", name),
            statuses: StatusWriter::new(client.clone(), cancel.clone()),
            client,
            node,
            services,
            followed: Mutex::default(),
            wanted,
            cancel,
        }
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    async fn get<K>(&self, namespace: &str, name: &str, kind: &str) -> Result<K, Error>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        api.get(name).await.map_err(|e| told(&e, kind, name))
    }

    fn watch(&self, reference: &Reference) -> Followed {
        let pods = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = self.cancel.child_token();
        let of = |namespace: &str, name: &str| Scope {
            namespace: Some(namespace.to_owned()),
            labels: None,
            fields: Some(format!("metadata.name={name}")),
        };
        match reference {
            Reference::ConfigMap { namespace, name } => {
                let cache = Cache::<ConfigMap>::spawn(&self.client, of(namespace, name), stop.clone());
                tokio::spawn(tell(cache, Arc::clone(&pods), self.wanted.clone(), stop.clone()));
            }
            Reference::Secret { namespace, name } => {
                let cache = Cache::<Secret>::spawn(&self.client, of(namespace, name), stop.clone());
                tokio::spawn(tell(cache, Arc::clone(&pods), self.wanted.clone(), stop.clone()));
            }
        }
        Followed { pods, stop }
    }
}

/// Passes each change of an object on to the pods that use it.
async fn tell<K: mini_client::cache::Kind>(
    cache: Cache<K>,
    pods: Arc<Mutex<BTreeSet<String>>>,
    wanted: mpsc::UnboundedSender<Wanted>,
    stop: CancellationToken,
) {
    let mut changes = cache.subscribe();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => change,
        };
        if change.is_none() {
            return;
        }
        for uid in pods.lock().iter() {
            let _ = wanted.send(Wanted::Touched(uid.clone()));
        }
    }
}

fn told(error: &kube::Error, kind: &str, name: &str) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 404 => Error::NotFound(format!("{kind} \"{name}\" not found")),
        kube::Error::Api(status) => Error::Other(status.message.clone()),
        other => Error::Other(other.to_string()),
    }
}

impl Cluster for ApiCluster {
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<ConfigMap, Error>> {
        self.get(namespace, name, "configmap").boxed()
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, Error>> {
        self.get(namespace, name, "secret").boxed()
    }

    fn claim<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PersistentVolumeClaim, Error>> {
        self.get(namespace, name, "persistentvolumeclaim").boxed()
    }

    fn volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<PersistentVolume, Error>> {
        async move {
            let api: Api<PersistentVolume> = Api::all(self.client.clone());
            api.get(name).await.map_err(|e| told(&e, "persistentvolume", name))
        }
        .boxed()
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.list().into_iter().next()
    }

    fn services(&self) -> BoxFuture<'_, Vec<Arc<Service>>> {
        async {
            self.services.synced().await;
            self.services.list()
        }
        .boxed()
    }

    fn token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        spec: TokenSpec,
    ) -> BoxFuture<'a, Result<Token, Error>> {
        async move {
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
                "spec": {
                    "audiences": spec.audience.into_iter().collect::<Vec<_>>(),
                    "expirationSeconds": spec.expiration_seconds,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": spec.pod_name, "uid": spec.pod_uid},
                },
            });
            let request: TokenRequest = serde_json::from_value(request).map_err(|e| Error::Other(e.to_string()))?;
            let answer = api
                .create_token_request(account, &PostParams::default(), &request)
                .await
                .map_err(|e| told(&e, "serviceaccount", account))?;
            let status = serde_json::to_value(answer.status).unwrap_or_default();
            let text = |key: &str| status.get(key).and_then(|v| v.as_str()).unwrap_or_default();
            let expires =
                text("expirationTimestamp").parse().map_err(|e| Error::Other(format!("token expiry: {e}")))?;
            Ok(Token { token: text("token").to_owned(), expires })
        }
        .boxed()
    }

    fn follow(&self, uid: &str, references: BTreeSet<Reference>) {
        let mut followed = self.followed.lock();
        followed.retain(|reference, entry| {
            let mut pods = entry.pods.lock();
            if !references.contains(reference) {
                pods.remove(uid);
            }
            !pods.is_empty() || references.contains(reference)
        });
        for reference in references {
            let entry = followed.entry(reference).or_insert_with_key(|r| self.watch(r));
            entry.pods.lock().insert(uid.to_owned());
        }
    }

    fn report(&self, pod: &Arc<Pod>, status: PodStatus) {
        self.statuses.report(pod, status);
    }

    fn finish<'a>(&'a self, pod: &'a Arc<Pod>, status: PodStatus) -> BoxFuture<'a, Result<(), Error>> {
        async move { self.statuses.finish(pod, status).await.map_err(|e| told(&e, "pod", crate::pod::name(pod))) }
            .boxed()
    }

    fn event(&self, about: ObjectReference, warning: bool, reason: &str, message: String) {
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.recorder.event(&about, kind, reason, message);
    }
}
