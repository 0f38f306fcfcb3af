//! Deletes all that is in a namespace that is being deleted, pods first, and then lets it go.

mod conditions;
mod custom;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::Request;
use mini_client::{Cache, Caches, Change, Client};
use serde_json::json;

use crate::driver::{Error, Key, Outcome, Source, Writes, code, message, optional};
use crate::served::{self, Served};

const FINALIZER: &str = "kubernetes";
/// How soon to look again for content that finalizers hold.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Controller {
    client: Client,
    namespaces: Cache<Namespace>,
    pods: Cache<Pod>,
}

/// What a sweep through a namespace left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Objects left, by `plural.group`.
    objects: BTreeMap<String, usize>,
    /// Objects held, by finalizer.
    finalizers: BTreeMap<String, usize>,
    undiscovered: Vec<String>,
    failures: Vec<String>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), namespaces: caches.of(), pods: caches.of() }
    }

    async fn sweep(&self, namespace: &str) -> Result<Remains, Error> {
        let (mut served, undiscovered) = served::discover(&self.client).await?;
        let mut remains = Remains { undiscovered, ..Remains::default() };
        if let Err(error) = custom::as_stored(&self.client, &mut served).await {
            // The versions that discovery prefers do where nothing needs converting.
            tracing::debug!(%error, "cannot ask in which versions custom kinds are stored");
        }
        let content = |row: &&Served| row.namespaced && row.can("list") && row.can("delete");
        let is_pods = |row: &&Served| row.resource.plural == "pods" && row.resource.group.is_empty();
        // Pods go first: what they use must not vanish under them.
        for row in served.iter().filter(content).filter(is_pods) {
            self.empty(namespace, row, &mut remains).await;
        }
        if remains.objects.is_empty() {
            let rows: Vec<_> = served.iter().filter(content).filter(|row| !is_pods(row)).collect();
            let parts = join_all(rows.into_iter().map(|row| async move {
                let mut part = Remains::default();
                self.empty(namespace, row, &mut part).await;
                part
            }));
            parts.await.into_iter().for_each(|part| remains.add(part));
        }
        Ok(remains)
    }

    /// Deletes all objects of one kind and counts what stays.
    async fn empty(&self, namespace: &str, row: &Served, remains: &mut Remains) {
        let kind = match row.resource.group.as_str() {
            "" => row.resource.plural.clone(),
            group => format!("{}.{group}", row.resource.plural),
        };
        if let Err(error) = self.try_empty(namespace, row, &kind, remains).await
            && !matches!(code(&error), 404 | 405)
        {
            remains.failures.push(format!("{kind}: {}", message(&error)));
        }
    }

    async fn try_empty(
        &self,
        namespace: &str,
        row: &Served,
        kind: &str,
        remains: &mut Remains,
    ) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &row.resource);
        let present = self.list(&api).await?;
        if present.is_empty() {
            return Ok(());
        }
        if row.can("deletecollection") {
            let request = Request::new(api.resource_url().to_owned())
                .delete_collection(&DeleteParams::background(), &ListParams::default())
                .map_err(kube::Error::BuildRequest)?;
            self.client.request_text(request).await?;
        } else {
            for object in present.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                optional(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        let left = self.list(&api).await?;
        if !left.is_empty() {
            remains.objects.insert(kind.to_owned(), left.len());
        }
        for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        Ok(())
    }

    async fn list(&self, api: &Api<DynamicObject>) -> Result<Vec<Stub>, kube::Error> {
        let request = Request::new(api.resource_url().to_owned())
            .list(&ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        Ok(self.client.request::<Stubs>(request).await?.items)
    }

    async fn finalize(&self, namespace: &Namespace, name: &str) -> Result<(), Error> {
        let mut next = json!(namespace);
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        let left: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        next["apiVersion"] = json!("v1");
        next["kind"] = json!("Namespace");
        next["spec"]["finalizers"] = json!(left);
        // The latest state is meant, whatever it is.
        next["metadata"]["resourceVersion"].take();
        let body = serde_json::to_vec(&next).map_err(kube::Error::SerdeError)?;
        let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
            .header("content-type", "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        optional(self.client.request_text(request).await)?;
        Ok(())
    }

    async fn write_conditions(
        &self,
        namespace: &Namespace,
        remains: &Remains,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let present = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        let Some(conditions) = conditions::update(&present, remains, k8s_openapi::jiff::Timestamp::now()) else {
            return Ok(());
        };
        let api: Api<Namespace> = Api::all(self.client.clone());
        let status = json!({"phase": "Terminating", "conditions": conditions});
        let patch = Patch::Merge(json!({"metadata": {"uid": namespace.metadata.uid}, "status": status}));
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        if let Some(written) = optional(api.patch_status(name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.namespaces, &written);
        }
        Ok(())
    }
}

/// As much of an object as a sweep must know.
#[derive(serde::Deserialize)]
struct Stub {
    metadata: StubMeta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct StubMeta {
    name: Option<String>,
    deletion_timestamp: Option<String>,
    finalizers: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct Stubs {
    items: Vec<Stub>,
}

impl Remains {
    fn add(&mut self, other: Self) {
        self.objects.extend(other.objects);
        for (finalizer, count) in other.finalizers {
            *self.finalizers.entry(finalizer).or_default() += count;
        }
        self.failures.extend(other.failures);
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty() && self.undiscovered.is_empty()
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn sources(&self) -> Vec<Source> {
        let namespaces = Source::of(&self.namespaces, |change| match change {
            Change::Deleted(_) => Vec::new(),
            _ if change.object().metadata.deletion_timestamp.is_none() => Vec::new(),
            _ => vec![Key::of(change.object().as_ref())],
        });
        let all = self.namespaces.clone();
        let pods = Source::of(&self.pods, move |change| match change {
            Change::Deleted(pod) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let leaving = all.get("", namespace).is_some_and(|n| n.metadata.deletion_timestamp.is_some());
                leaving.then(|| Key::new("", namespace)).into_iter().collect()
            }
            _ => Vec::new(),
        });
        vec![namespaces, pods]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(namespace) = self.namespaces.get("", &key.name) else { return Ok(None) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        let ours = finalizers.is_some_and(|list| list.iter().any(|finalizer| finalizer == FINALIZER));
        if namespace.metadata.deletion_timestamp.is_none() || !ours {
            return Ok(None);
        }
        let remains = self.sweep(&key.name).await?;
        if remains.is_empty() {
            self.finalize(&namespace, &key.name).await?;
            writes.deleted(&self.namespaces, namespace.as_ref());
            return Ok(None);
        }
        self.write_conditions(&namespace, &remains, writes).await?;
        if !remains.failures.is_empty() || !remains.undiscovered.is_empty() {
            let all = remains.failures.iter().chain(&remains.undiscovered).cloned().collect::<Vec<_>>();
            return Err(Error::NotYet(all.join("; ")));
        }
        Ok(Some(LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests;
