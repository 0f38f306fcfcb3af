//! Creating and deleting pods for an owner, with the events that tell of it.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource};
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};

use crate::driver::{Error, Writes, code, message};
use crate::owner::controller_reference;

/// One controller's hand on pods.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
    pods: Cache<Pod>,
    pub(crate) recorder: Recorder,
}

impl PodControl {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        Self { client: client.clone(), pods: caches.of(), recorder }
    }

    pub(crate) fn api<O: Resource>(&self, owner: &O) -> Api<Pod> {
        Api::namespaced(self.client.clone(), owner.meta().namespace.as_deref().unwrap_or_default())
    }

    /// Creates pods in batches of 1, 2, 4 …: if the server refuses one, it is not asked hundreds of times. Tells how
    /// many were made, and what stopped it.
    pub(crate) async fn create<O>(&self, owner: &O, pods: Vec<Pod>, writes: &mut Writes) -> Result<usize, Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.api(owner);
        let (mut rest, mut batch, mut made) = (pods.as_slice(), 1, 0);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(batch));
            let params = PostParams::default();
            let created = futures::future::join_all(now.iter().map(|pod| api.create(&params, pod))).await;
            let mut failure = None;
            for result in created {
                match result {
                    Ok(pod) => {
                        made += 1;
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        let said = format!("Created pod: {name}");
                        self.recorder.event(&reference(owner), EventType::Normal, "SuccessfulCreate", said);
                        writes.wrote(&self.pods, &pod);
                    }
                    Err(error) if namespace_is_leaving(&error) => return Ok(made),
                    Err(error) => {
                        let said = format!("Error creating: {}", message(&error));
                        self.recorder.event(&reference(owner), EventType::Warning, "FailedCreate", said);
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(error.into());
            }
            (rest, batch) = (later, now.len() * 2);
        }
        Ok(made)
    }

    /// Deletes pods; the first failure is told once all were tried.
    pub(crate) async fn delete<O>(&self, owner: &O, pods: &[Arc<Pod>], writes: &mut Writes) -> Result<(), Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.api(owner);
        let deletions = pods.iter().map(|pod| {
            let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let (api, name) = (&api, pod.metadata.name.clone().unwrap_or_default());
            async move { api.delete(&name, &params).await.map(|_| ()) }
        });
        let (mut failure, mut gone) = (None, Vec::new());
        for (result, pod) in futures::future::join_all(deletions).await.into_iter().zip(pods) {
            match result {
                Ok(()) => {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    let said = format!("Deleted pod: {name}");
                    self.recorder.event(&reference(owner), EventType::Normal, "SuccessfulDelete", said);
                    gone.push(pod.as_ref());
                }
                Err(error) if code(&error) == 404 => gone.push(pod.as_ref()),
                Err(error) => {
                    let said = format!("Error deleting: {}", message(&error));
                    self.recorder.event(&reference(owner), EventType::Warning, "FailedDelete", said);
                    failure = Some(error);
                }
            }
        }
        writes.all_deleted(&self.pods, gone);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// The pod that a template makes for an owner.
pub(crate) fn pod_of<O>(owner: &O, template: &PodTemplateSpec) -> Pod
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta().name.as_deref().unwrap_or_default())),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creations in a namespace that is being deleted all fail, and need not be told.
pub(crate) fn namespace_is_leaving(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
