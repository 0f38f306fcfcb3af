//! The pods of simulated nodes: they run at once, those of Jobs succeed a moment later, and who is to go goes at once.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{Cache, Caches, Change};
use serde_json::{Value, json};

use super::status::{self, End};
use super::{Addresses, Fleet, SharedAddresses, host_address};
use crate::driver::{Error, Key, Outcome, Source, Writes, optional};
use crate::owner::controller_named;
use crate::pods;

/// How long the pod of a Job runs.
const WORK: SignedDuration = SignedDuration::from_secs(1);

pub(crate) struct Controller {
    fleet: Fleet,
    pods: Cache<Pod>,
    addresses: SharedAddresses,
}

/// What is to be done about a pod now.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Wait(Duration),
    Start,
    /// Its readiness gates say something else than its condition.
    Recondition,
    End(End),
    Remove,
}

impl Controller {
    pub(crate) fn new(fleet: &Fleet, caches: &Caches) -> Self {
        Self { fleet: fleet.clone(), pods: caches.of(), addresses: SharedAddresses::default() }
    }

    fn start(&self, pod: &Pod, node: usize, now: Timestamp) -> Result<Value, Error> {
        let host = host_address(node);
        if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            return Ok(status::running(pod, host, host, now));
        }
        let mut addresses = self.addresses.lock();
        let addresses = addresses.get_or_insert_with(|| Addresses::of(&self.pods.list()));
        match addresses.give(pod.metadata.uid.as_deref().unwrap_or_default(), node) {
            Some(ip) => Ok(status::running(pod, host, ip, now)),
            None => Err(Error::NotYet("the node has no address left".to_owned())),
        }
    }

    fn release(&self, pod: &Pod) {
        if let (Some(addresses), Some(uid)) = (self.addresses.lock().as_mut(), &pod.metadata.uid) {
            addresses.release(uid);
        }
    }
}

fn step(pod: &Pod, now: Timestamp) -> Step {
    let meta = &pod.metadata;
    if meta.deletion_timestamp.is_some() {
        // Somebody who keeps it from going may want to know how it ended.
        let watched = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        return match (watched && !pods::is_finished(pod), meta.deletion_grace_period_seconds) {
            (true, _) => Step::End(End::Killed),
            (false, Some(0)) => Step::Nothing,
            (false, _) => Step::Remove,
        };
    }
    if pods::is_finished(pod) {
        return Step::Nothing;
    }
    if pods::phase(pod) != "Running" {
        return Step::Start;
    }
    if status::gates_turned(pod) {
        return Step::Recondition;
    }
    let spec = pod.spec.as_ref();
    let since = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
    let deadline = spec.and_then(|spec| spec.active_deadline_seconds).map(SignedDuration::from_secs);
    let works = spec.and_then(|spec| spec.restart_policy.as_deref()).is_some_and(|policy| policy != "Always")
        && controller_named::<Job>(meta).is_some();
    let ends = [deadline.map(|after| (after, End::Late)), works.then_some((WORK, End::Done))];
    let Some((after, end)) = ends.into_iter().flatten().min_by_key(|(after, _)| *after) else { return Step::Nothing };
    match Duration::try_from(after - now.duration_since(since)) {
        Ok(left) if !left.is_zero() => Step::Wait(left),
        _ => Step::End(end),
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "simulated-pods"
    }

    fn sources(&self) -> Vec<Source> {
        let (fleet, addresses) = (self.fleet.clone(), self.addresses.clone());
        vec![Source::of(&self.pods, move |change| {
            let pod = change.object();
            if let (Change::Deleted(_), Some(uid)) = (change, &pod.metadata.uid) {
                if let Some(addresses) = addresses.lock().as_mut() {
                    addresses.release(uid);
                }
                return Vec::new();
            }
            let concerns = fleet.number(pods::node(pod)).is_some() && step(pod, Timestamp::now()) != Step::Nothing;
            concerns.then(|| Key::of(pod.as_ref())).into_iter().collect()
        })]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(node) = self.fleet.number(pods::node(&pod)) else { return Ok(None) };
        let Some(client) = self.fleet.client(node) else { return Ok(None) };
        let api: Api<Pod> = Api::namespaced(client, &key.namespace);
        let now = Timestamp::now();
        let status = match step(&pod, now) {
            Step::Nothing => return Ok(None),
            Step::Wait(left) => return Ok(Some(left)),
            Step::Remove => {
                let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let params =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
                if optional(api.delete(&key.name, &params).await)?.is_some() {
                    writes.deleted(&self.pods, pod.as_ref());
                }
                return Ok(None);
            }
            Step::Start => self.start(&pod, node, now)?,
            Step::Recondition => status::conditions(&pod, now),
            Step::End(end) => {
                self.release(&pod);
                status::ended(&pod, end, now)
            }
        };
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
        if let Some(written) = optional(api.patch_status(&key.name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.pods, &written);
        } else {
            // Gone before it had its address, and nobody will tell so again.
            self.release(&pod);
        }
        Ok(None)
    }
}
