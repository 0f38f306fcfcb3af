//! Counting pods that ended, in the order that survives a crash: list them, take their finalizer, count them.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use mini_client::{EventType, reference};
use serde_json::json;

use super::{Controller, Run, TRACKING, conditions, count, index, is_tracked, manage, policy, uid};
use crate::driver::{Error, Key, Writes, code, optional};
use crate::owner::controller_of;
use crate::{pods, write};

/// Pods listed as not counted at once.
const MOST_LISTED: usize = 500;

impl Controller {
    /// Takes the finalizer off pods; tells of which.
    pub(super) async fn untrack(&self, pods: &[Arc<Pod>], writes: &mut Writes) -> Result<HashSet<String>, Error> {
        let tracked: Vec<_> = pods.iter().filter(|pod| is_tracked(pod)).collect();
        let patches = tracked.iter().map(|pod| {
            let meta = json!({"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]});
            let (api, patch): (Api<Pod>, _) =
                (self.control.api(pod.as_ref()), Patch::Strategic(json!({"metadata": meta})));
            async move {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                match api.patch(name, &PatchParams::default(), &patch).await {
                    Err(error) if code(&error) == 404 => Ok(()),
                    Err(error) if matches!(code(&error), 409 | 422) => {
                        // Is it another pod of the same name by now?
                        let present = optional(api.get(name).await)?;
                        let same = present.is_some_and(|now| now.metadata.uid == pod.metadata.uid);
                        if same { Err(error) } else { Ok(()) }
                    }
                    patched => patched.map(drop),
                }
            }
        });
        let (mut gone, mut failure) = (HashSet::new(), None);
        for (result, pod) in futures::future::join_all(patches).await.into_iter().zip(&tracked) {
            match result {
                Err(error) => failure = Some(error),
                Ok(()) => {
                    gone.insert(uid(pod).to_owned());
                    let (key, old) = (Key::of(pod.as_ref()), pod.metadata.uid.clone());
                    writes.until(&self.pods, move |cache| {
                        cache
                            .get(&key.namespace, &key.name)
                            .is_none_or(|now| now.metadata.uid != old || !is_tracked(&now))
                    });
                }
            }
        }
        failure.map_or(Ok(gone), |error| Err(error.into()))
    }

    /// A pod that no controller has keeps no finalizer, whatever its labels say.
    pub(super) async fn release_orphan(&self, namespace: &str, name: &str, writes: &mut Writes) -> Result<(), Error> {
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(()) };
        if !is_tracked(&pod) || controller_of(&pod.metadata).is_some() {
            return Ok(());
        }
        // With its revision: a Job may adopt it meanwhile.
        let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
            "$deleteFromPrimitiveList/finalizers": [TRACKING]});
        let patch = Patch::Strategic(json!({"metadata": meta}));
        let written = self.control.api(pod.as_ref()).patch(name, &PatchParams::default(), &patch).await;
        if let Some(written) = optional(written)? {
            writes.wrote(&self.pods, &written);
        }
        Ok(())
    }

    /// Pods of a Job of this name that is no more keep no finalizer.
    pub(super) async fn release_orphans(&self, key: &Key, job: Option<&Job>, writes: &mut Writes) -> Result<(), Error> {
        let present = job.and_then(|job| job.metadata.uid.as_ref());
        let lost = |pod: &Arc<Pod>| {
            let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job" && owner.name == key.name);
            is_tracked(pod) && owner.is_some_and(|owner| Some(&owner.uid) != present)
        };
        let lost: Vec<_> = self.pods.list_in(&key.namespace).into_iter().filter(lost).collect();
        self.untrack(&lost, writes).await.map(drop)
    }

    /// Writes what became of the Job.
    pub(super) async fn track(&self, mut run: Run<'_>, writes: &mut Writes) -> Result<(), Error> {
        let tracked: HashSet<String> =
            run.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod).to_owned()).collect();
        count_listed(&mut run.status, &tracked);
        run.status.active.take_if(|active| *active == 0);
        let (settled, all) = run.list();
        if let Some(decision) =
            run.verdict.take_if(|verdict| matches!(verdict.type_.as_str(), conditions::LOST | conditions::WON))
        {
            run.verdict = Some(conditions::end_of(&decision, run.now));
            conditions::set(&mut run.status, decision);
        }
        let written = write::status(&self.client, &self.jobs, run.job, (&run.job.status, &run.status), writes).await?;
        let untracked = self.untrack(&settled, writes).await?;
        let left = tracked.into_iter().filter(|uid| !untracked.contains(uid)).collect();
        let listed = written.as_ref().map_or_else(|| run.job.status.clone(), |job| job.status.clone());
        count_listed(&mut run.status, &left);
        let end = if all { run.end() } else { None };
        write::status(&self.client, &self.jobs, written.as_ref().unwrap_or(run.job), (&listed, &run.status), writes)
            .await?;
        if let Some((kind, reason, message)) = end {
            let subject = reference(run.job);
            let over = run.spec.completions.is_some_and(|wanted| run.succeeded > wanted);
            if kind == EventType::Normal && over {
                let said = "Too many succeeded pods running after completion count reached";
                self.control.recorder.event(&subject, EventType::Warning, "TooManySucceededPods", said);
            }
            self.control.recorder.event(&subject, kind, &reason, message);
        }
        Ok(())
    }
}

/// Counts the listed pods whose finalizer is gone.
fn count_listed(status: &mut JobStatus, tracked: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let take = |list: &mut Option<Vec<String>>| {
        let before = list.as_ref().map_or(0, Vec::len);
        if let Some(list) = list {
            list.retain(|uid| tracked.contains(uid));
        }
        list.take_if(|list| list.is_empty());
        count(before - list.as_ref().map_or(0, Vec::len))
    };
    let (succeeded, failed) = (take(&mut uncounted.succeeded), take(&mut uncounted.failed));
    for (counter, more) in [(&mut status.succeeded, succeeded), (&mut status.failed, failed)] {
        if more > 0 {
            *counter = Some(counter.unwrap_or_default() + more);
        }
    }
}

impl Run<'_> {
    /// Lists pods that ended as not counted; gives those whose finalizer may go, and whether these were all.
    fn list(&mut self) -> (Vec<Arc<Pod>>, bool) {
        let mut uncounted = self.status.uncounted_terminated_pods.take().unwrap_or_default();
        let (mut succeeded, mut failed) =
            (uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default());
        let (mut settled, mut done, mut all) = (Vec::new(), Vec::new(), true);
        let lost = self
            .verdict
            .as_ref()
            .is_some_and(|verdict| !matches!(verdict.type_.as_str(), conditions::WON | "Complete"));
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|pod| index(self.spec, pod));
        for pod in pods {
            let has_failed = policy::is_failed(self.job, pod);
            if !manage::is_settled(self, pod, has_failed) {
                continue;
            }
            settled.push(pod.clone());
            let (uid, place) = (uid(pod).to_owned(), index(self.spec, pod));
            let known = failed.contains(&uid);
            if pods::phase(pod) == "Succeeded" && !known {
                match &self.indexed {
                    Some(_) => done.extend(place),
                    None if !succeeded.contains(&uid) => succeeded.push(uid),
                    None => {}
                }
            } else if (has_failed || lost)
                && !known
                && (self.indexed.is_none() || place.is_some())
                && policy::judge(self.job, pod).counts
            {
                failed.push(uid);
            }
            if done.len() + succeeded.len() + failed.len() >= MOST_LISTED {
                all = false;
                break;
            }
        }
        uncounted.succeeded = Some(succeeded).filter(|list| !list.is_empty());
        uncounted.failed = Some(failed).filter(|list| !list.is_empty());
        self.status.uncounted_terminated_pods = Some(uncounted);
        if let Some(indexed) = &self.indexed {
            let counted = indexed.counted.with(done);
            let total = counted.total();
            if total > 0 || self.status.succeeded.is_some() {
                self.status.succeeded = Some(total);
            }
            self.status.completed_indexes = Some(counted.to_string()).filter(|text| !text.is_empty());
            // Told also while there are none.
            self.status.failed_indexes = indexed.failed.as_ref().map(ToString::to_string);
        }
        (settled, all)
    }

    /// Ends the Job if it is decided, everything is counted and no pod is left; gives the event that tells so.
    fn end(&mut self) -> Option<(EventType, String, String)> {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let waits = uncounted.is_some_and(|listed| listed.succeeded.is_some() || listed.failed.is_some());
        if waits || self.status.terminating.unwrap_or_default() > 0 || self.status.active.unwrap_or_default() > 0 {
            return None;
        }
        let end = self.verdict.take()?;
        let event = if end.type_ == "Complete" {
            self.status.completion_time = end.last_transition_time.clone();
            (EventType::Normal, "Completed".to_owned(), "Job completed".to_owned())
        } else {
            (EventType::Warning, end.reason.clone().unwrap_or_default(), end.message.clone().unwrap_or_default())
        };
        conditions::set(&mut self.status, end).then_some(event)
    }
}
