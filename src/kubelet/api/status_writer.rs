//! Writes pod statuses: the newest wins, equal ones are not written, unimportant ones wait a moment for the next.
//!
//! One write at a time for each pod, any number of pods at once. Nobody waits for it but the deletion.

use crate::pod;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{CancellationToken, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long a status on the way to a better one waits for it: a pod that starts well needs one write.
const PATIENCE: Duration = Duration::from_millis(250);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct StatusWriter {
    client: Client,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
    cancel: CancellationToken,
}

struct Slot {
    pod: Arc<Pod>,
    newest: Option<PodStatus>,
    written: Option<Value>,
    busy: bool,
    hurry: Arc<Notify>,
}

impl StatusWriter {
    pub(super) fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, slots: Arc::default(), cancel }
    }

    pub(super) fn report(&self, pod: &Arc<Pod>, status: PodStatus) {
        let mut slots = self.slots.lock();
        let slot = slots.entry(pod::uid(pod).to_owned()).or_insert_with(|| Slot {
            pod: Arc::clone(pod),
            newest: None,
            written: pod.status.as_ref().and_then(|s| serde_json::to_value(s).ok()),
            busy: false,
            hurry: Arc::default(),
        });
        if pod.metadata.resource_version != slot.pod.metadata.resource_version
            && pod.status.as_ref().is_some_and(|told| pod::is_ready(&status) && !pod::is_ready(told))
        {
            // Somebody else wrote the readiness since: what was written is no longer there.
            slot.written = pod.status.as_ref().and_then(|s| serde_json::to_value(s).ok());
        }
        slot.pod = Arc::clone(pod);
        let patient = may_wait(&status);
        slot.newest = Some(status);
        if !patient {
            slot.hurry.notify_one();
        }
        if !slot.busy {
            slot.busy = true;
            let writer = self.clone();
            let uid = pod::uid(pod).to_owned();
            tokio::spawn(async move { writer.write(uid).await });
        }
    }

    async fn write(self, uid: String) {
        let mut retry = RETRY_FIRST;
        loop {
            let hurry = match self.slots.lock().get_mut(&uid) {
                Some(slot) if slot.newest.is_some() => Arc::clone(&slot.hurry),
                Some(slot) => {
                    slot.busy = false;
                    return;
                }
                None => return,
            };
            let patient = self.slots.lock().get(&uid).and_then(|s| s.newest.as_ref().map(may_wait)).unwrap_or(false);
            if patient {
                let _ = tokio::time::timeout(PATIENCE, hurry.notified()).await;
            }
            let job = {
                let mut slots = self.slots.lock();
                let Some(slot) = slots.get_mut(&uid) else { return };
                slot.newest.take().map(|newest| (Arc::clone(&slot.pod), newest, slot.written.clone()))
            };
            let Some((pod, newest, written)) = job else { continue };
            let Ok(value) = serde_json::to_value(&newest) else { continue };
            if written.as_ref() == Some(&value) {
                continue;
            }
            match self.patch(&pod, &value, written.as_ref()).await {
                Ok(()) => {
                    retry = RETRY_FIRST;
                    if let Some(slot) = self.slots.lock().get_mut(&uid) {
                        slot.written = Some(value);
                    }
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                    tracing::debug!(pod = pod::full_name(&pod), "status of a pod that is gone");
                    self.slots.lock().remove(&uid);
                    return;
                }
                Err(error) => {
                    tracing::warn!(pod = pod::full_name(&pod), %error, "status not written");
                    if let Some(slot) = self.slots.lock().get_mut(&uid)
                        && slot.newest.is_none()
                    {
                        slot.newest = Some(newest);
                    }
                    tokio::select! {
                        () = self.cancel.cancelled() => return,
                        () = tokio::time::sleep(retry) => {}
                    }
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn patch(&self, pod: &Pod, status: &Value, written: Option<&Value>) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod::namespace(pod));
        let patch = json!({"metadata": {"uid": pod::uid(pod)}, "status": difference(status, written)});
        api.patch_status(pod::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    /// Writes the last status, then deletes. A pod that is gone already is fine.
    pub(super) async fn finish(&self, pod: &Arc<Pod>, status: PodStatus) -> Result<(), kube::Error> {
        let known = || pod.status.as_ref().and_then(|s| serde_json::to_value(s).ok());
        let written = self.slots.lock().remove(pod::uid(pod)).map_or_else(known, |s| s.written);
        let gone = |e: &kube::Error| matches!(e, kube::Error::Api(s) if s.code == 404 || s.code == 409);
        if let Ok(value) = serde_json::to_value(&status)
            && written.as_ref() != Some(&value)
            && let Err(error) = self.patch(pod, &value, written.as_ref()).await
        {
            return if gone(&error) { Ok(()) } else { Err(error) };
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod::namespace(pod));
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..Default::default()
        };
        match api.delete(pod::name(pod), &parameters).await {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// A pod on its way up, with nothing to tell but that.
fn may_wait(status: &PodStatus) -> bool {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let quiet = |reason: &str| matches!(reason, "ContainerCreating" | "PodInitializing");
    let mut waits = all.map(|c| c.state.as_ref().and_then(|s| s.waiting.as_ref()).and_then(|w| w.reason.as_deref()));
    status.phase.as_deref() == Some("Pending") && waits.all(|reason| reason.is_none_or(quiet))
}

/// What to send: every field of the new status, and `null` for those that went. Lists of conditions are merged by type on
/// the other side, so each condition also says which of its fields are not there; lists of addresses are merged too, and
/// replace what was there.
fn difference(status: &Value, written: Option<&Value>) -> Value {
    let mut out = status.clone();
    if let (Some(new), Some(old)) = (out.as_object_mut(), written.and_then(Value::as_object)) {
        for key in old.keys() {
            if !new.contains_key(key) && !matches!(key.as_str(), "conditions" | "nominatedNodeName" | "resize") {
                new.insert(key.clone(), Value::Null);
            }
        }
    }
    for key in ["podIPs", "hostIPs"] {
        if let Some(addresses) = out.get_mut(key).and_then(Value::as_array_mut) {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    for condition in out.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            for key in ["reason", "message"] {
                condition.entry(key).or_insert(Value::Null);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_is_sent_as_null() {
        let old = json!({"phase": "Pending", "reason": "x", "conditions": []});
        let new = json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.2"}], "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(
            difference(&new, Some(&old)),
            json!({"phase": "Running", "reason": null, "podIPs": [{"$patch": "replace"}, {"ip": "10.1.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]})
        );
    }

    #[test]
    fn only_a_quiet_start_waits() {
        let status = |phase: &str, reason: &str| -> PodStatus {
            serde_json::from_value(
                json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "",
                "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}}]}),
            )
            .unwrap()
        };
        assert!(may_wait(&status("Pending", "ContainerCreating")));
        assert!(!may_wait(&status("Pending", "ErrImagePull")));
        assert!(!may_wait(&status("Running", "ContainerCreating")));
    }
}
