//! Writing decisions down: bindings, conditions and events, all beside the scheduling loop.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{Client, EventType, Recorder, reference};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::claims::{self, Choice};

/// How a binding ended.
pub(crate) enum Bound {
    Done(Arc<Pod>),
    Failed(Arc<Pod>),
}

/// What becomes of the promise of a node to a pod that fits nowhere yet.
#[derive(Clone, Copy)]
pub(crate) enum Promise<'a> {
    Keep,
    Node(&'a str),
    None,
}

pub(crate) struct Binder {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) outcomes: mpsc::UnboundedSender<Bound>,
}

impl Binder {
    pub(crate) fn bind(&self, pod: Arc<Pod>, node: String) {
        let (client, recorder, outcomes) = (self.client.clone(), self.recorder.clone(), self.outcomes.clone());
        tokio::spawn(async move {
            let bound = match post(&client, &pod, &node).await {
                Ok(()) => {
                    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    let said = format!("Successfully assigned {namespace}/{name} to {node}");
                    recorder.event(&reference(pod.as_ref()), EventType::Normal, "Scheduled", said);
                    Bound::Done(pod)
                }
                Err(error) => {
                    // Gone or bound by somebody else is no failure worth an event.
                    if !matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409)) {
                        let said = format!("binding rejected: {error}");
                        recorder.event(&reference(pod.as_ref()), EventType::Warning, "FailedScheduling", said);
                    }
                    Bound::Failed(pod)
                }
            };
            // The loop is gone only at shutdown.
            let _ = outcomes.send(bound);
        });
    }

    /// Writes what the pod's claims need to be bound on its node. The pod comes back when they change.
    pub(crate) fn prepare_volumes(&self, pod: Arc<Pod>, choices: Vec<Choice>) {
        let (client, outcomes) = (self.client.clone(), self.outcomes.clone());
        tokio::spawn(async move {
            for choice in &choices {
                if let Err(error) = claims::write(&client, choice).await {
                    tracing::debug!(pod = pod.metadata.name.as_deref(), %error, "volumes not chosen");
                    let _ = outcomes.send(Bound::Failed(pod));
                    return;
                }
            }
        });
    }

    /// Tells why a pod fits nowhere.
    pub(crate) fn tell_unschedulable(&self, pod: &Arc<Pod>, why: &str, promise: Promise<'_>) {
        self.recorder.event(&reference(pod.as_ref()), EventType::Warning, "FailedScheduling", why);
        self.write_condition(pod, "Unschedulable", why, promise);
    }

    /// Makes room for a pod: its victims are told, then deleted; `displaced` pods lose the promise of the node.
    pub(crate) fn preempt(&self, pod: &Arc<Pod>, node: &str, victims: Vec<Arc<Pod>>, displaced: Vec<Arc<Pod>>) {
        for other in displaced {
            let patch = json!({"metadata": {"uid": other.metadata.uid}, "status": {"nominatedNodeName": null}});
            self.patch_status(other, patch);
        }
        let said = format!("Preempted by pod {} on node {node}", pod.metadata.uid.as_deref().unwrap_or_default());
        for victim in victims {
            if victim.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let (client, recorder, said) = (self.client.clone(), self.recorder.clone(), said.clone());
            tokio::spawn(async move {
                match remove(&client, &victim).await {
                    Ok(()) => recorder.event(&reference(victim.as_ref()), EventType::Normal, "Preempted", said),
                    Err(error) => tracing::warn!(pod = victim.metadata.name, %error, "not preempted"),
                }
            });
        }
    }

    pub(crate) fn tell_gated(&self, pod: &Arc<Pod>) {
        self.write_condition(
            pod,
            "SchedulingGated",
            "Scheduling is blocked due to non-empty scheduling gates",
            Promise::Keep,
        );
    }

    fn write_condition(&self, pod: &Arc<Pod>, reason: &str, message: &str, promise: Promise<'_>) {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let present = conditions.and_then(|conditions| conditions.iter().find(|c| c.type_ == "PodScheduled"));
        let status_same = present.is_some_and(|c| c.status == "False");
        let promised = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        let promise = match promise {
            Promise::Keep => promised,
            Promise::Node(name) => Some(name),
            Promise::None => None,
        };
        if status_same
            && promise == promised
            && present.is_some_and(|c| c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message))
        {
            return;
        }
        let since = present.filter(|_| status_same).and_then(|c| c.last_transition_time.clone());
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or(Time(Timestamp::now())),
            "observedGeneration": pod.metadata.generation});
        let mut status = json!({"conditions": [condition]});
        if promise != promised {
            status["nominatedNodeName"] = json!(promise);
        }
        self.patch_status(pod.clone(), json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
    }

    fn patch_status(&self, pod: Arc<Pod>, patch: Value) {
        let client = self.client.clone();
        tokio::spawn(async move {
            let api: Api<Pod> = Api::namespaced(client, pod.metadata.namespace.as_deref().unwrap_or_default());
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(pod = name, %error, "condition not written");
            }
        });
    }
}

/// Tells a victim's owner why it goes, and deletes it.
async fn remove(client: &Client, victim: &Pod) -> Result<(), kube::Error> {
    let meta = &victim.metadata;
    let api: Api<Pod> = Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let name = meta.name.as_deref().unwrap_or_default();
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": message, "lastTransitionTime": Time(Timestamp::now())});
    let patch = json!({"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    api.delete(name, &params).await.map(drop)
}

async fn post(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let binding = json!({"apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
        .header("content-type", "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request_text(request).await.map(|_| ())
}
