//! Job: runs pods until enough of them succeeded.
//!
//! Invariant: a pod is counted once. Pods carry a finalizer until their end stands in the Job's status; in between
//! their uids are listed there as not yet counted, so that a crash at any point neither loses nor doubles one.

mod conditions;
mod indexes;
mod manage;
mod policy;
mod time;
mod tracking;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;
use mini_client::{Cache, Caches, Client, Recorder};

use crate::driver::{Key, Outcome, Source, Writes};
use crate::owner::{self, controller_of};
use crate::pod_control::PodControl;
use crate::pods;
use indexes::Indexes;

pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Whose Jobs are this controller's.
const OURS: &str = "kubernetes.io/job-controller";

pub(crate) struct Controller {
    client: Client,
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    control: PodControl,
}

/// A Job in the middle of a reconcile.
struct Run<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    /// The status as it will be written.
    status: JobStatus,
    pods: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    /// What counts now: the status, what it lists as not counted, and what ended since.
    succeeded: i32,
    failed: i32,
    /// Of a Job with indexes.
    indexed: Option<Indexed>,
    /// How the Job ends, once that is decided.
    verdict: Option<JobCondition>,
    now: Timestamp,
}

#[derive(Default)]
struct Indexed {
    /// As the status has it.
    counted: Indexes,
    succeeded: Indexes,
    /// Of a Job with a back-off limit per index.
    failed: Option<Indexes>,
    /// The last failed pod of each index that waits for its next one: it holds the number of failures.
    kept: HashMap<i32, Arc<Pod>>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        let control = PodControl::new(client, caches, recorder);
        Self { client: client.clone(), jobs: caches.of(), pods: caches.of(), control }
    }
}

fn selector(job: &Job) -> Option<Selector> {
    let selector = Selector::try_from(job.spec.as_ref()?.selector.clone()?).ok()?;
    (!selector.selects_all()).then_some(selector)
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The completion index of a pod, if the Job asks for it.
fn index(spec: &JobSpec, pod: &Pod) -> Option<i32> {
    let index = pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()?;
    (0..spec.completions.unwrap_or_default()).contains(&index).then_some(index)
}

pub(crate) fn is_finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut ends = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    ends.next()
}

fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl<'a> Run<'a> {
    fn of(job: &'a Job, spec: &'a JobSpec, pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
        let mut status = job.status.clone().unwrap_or_default();
        let was_suspended = conditions::get(&status, "Suspended").is_some_and(|condition| condition.status == "True");
        if status.start_time.is_none() || was_suspended {
            // The time before a suspension does not count.
            status.start_time = (!is_suspended(spec)).then_some(Time(now));
        }
        let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
        let listed = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect::<HashSet<_>>();
        let (succeeded, failed) = (listed(&uncounted.succeeded), listed(&uncounted.failed));
        let fresh = |pod: &&Arc<Pod>, known: &HashSet<String>| {
            is_tracked(pod) && !known.contains(uid(pod)) && (!Self::is_indexed(spec) || index(spec, pod).is_some())
        };
        let newly = |list: &HashSet<String>, wanted: &dyn Fn(&Pod) -> bool| {
            count(list.len() + pods.iter().filter(|pod| fresh(pod, list) && wanted(pod)).count())
        };
        let succeeded =
            newly(&succeeded, &|pod| pods::phase(pod) == "Succeeded") + status.succeeded.unwrap_or_default();
        let counts = |pod: &Pod| policy::is_failed(job, pod) && policy::judge(job, pod).counts;
        let failed = newly(&failed, &counts) + status.failed.unwrap_or_default();
        let active = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        Self { job, spec, status, pods, active, succeeded, failed, indexed: None, verdict: None, now }
    }

    fn is_indexed(spec: &JobSpec) -> bool {
        spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Which indexes succeeded and failed, with the pods that ended since.
    fn read_indexes(&mut self) {
        if !Self::is_indexed(self.spec) {
            return;
        }
        let completions = self.spec.completions.unwrap_or_default();
        let tracked = || self.pods.iter().filter(|pod| is_tracked(pod));
        let done = tracked().filter(|pod| pods::phase(pod) == "Succeeded").filter_map(|pod| index(self.spec, pod));
        let counted = Indexes::parse(self.status.completed_indexes.as_deref().unwrap_or_default(), completions);
        let succeeded = counted.with(done);
        let failed = self.spec.backoff_limit_per_index.map(|limit| {
            let before = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            let lost = |pod: &Pod| {
                let meaning = policy::judge(self.job, pod);
                meaning.index || (meaning.counts && manage::failures(pod).counted >= limit)
            };
            let pods = tracked().filter(|pod| policy::is_failed(self.job, pod) && lost(pod));
            before.with(pods.filter_map(|pod| index(self.spec, pod)))
        });
        self.succeeded = succeeded.total();
        let kept = failed.as_ref().map(|failed| self.kept(&succeeded, failed)).unwrap_or_default();
        self.indexed = Some(Indexed { counted, succeeded, failed, kept });
    }

    /// The last failed pod of each index that is neither done nor lost nor running again.
    fn kept(&self, succeeded: &Indexes, failed: &Indexes) -> HashMap<i32, Arc<Pod>> {
        let running: HashSet<i32> = self.active.iter().filter_map(|pod| index(self.spec, pod)).collect();
        let mut kept: HashMap<i32, Arc<Pod>> = HashMap::new();
        let ended = self.pods.iter().filter(|pod| is_tracked(pod) && policy::is_failed(self.job, pod));
        for pod in ended {
            let Some(index) = index(self.spec, pod) else { continue };
            if succeeded.has(index) || failed.has(index) || running.contains(&index) {
                continue;
            }
            let rank = |pod: &Pod| (manage::failures(pod).all(), time::finished(pod));
            if kept.get(&index).is_none_or(|last| rank(last) <= rank(pod)) {
                kept.insert(index, pod.clone());
            }
        }
        kept
    }

    fn sooner(again: &mut Option<Duration>, next: Option<Duration>) {
        if let Some(next) = next {
            *again = Some(again.map_or(next, |soonest| soonest.min(next)));
        }
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "job"
    }

    fn sources(&self) -> Vec<Source> {
        let pods = owner::claimable(&self.pods, &self.jobs, selector);
        // Nobody's pod any more: its finalizer must still go.
        let orphans = Source::both(&self.pods, |pod| {
            let is_orphan = controller_of(&pod.metadata).is_none() && is_tracked(pod);
            is_orphan.then(|| Key::of_pod(pod)).into_iter().collect()
        });
        vec![Source::own(&self.jobs), pods, orphans]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if let Some(pod) = key.pod() {
            return self.release_orphan(&key.namespace, pod, writes).await.map(|()| None);
        }
        let job = self.jobs.get(&key.namespace, &key.name);
        let released = self.release_orphans(key, job.as_deref(), writes).await;
        let again = match job {
            Some(job) => self.sync(key, &job, writes).await?,
            None => None,
        };
        // Pods of another Job are no reason to leave this one alone.
        released?;
        Ok(again)
    }
}

impl Controller {
    async fn sync(&self, key: &Key, job: &Arc<Job>, writes: &mut Writes) -> Outcome {
        let (Some(spec), Some(selector)) = (&job.spec, selector(job)) else { return Ok(None) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != OURS) {
            return Ok(None);
        }
        let pods = self.pods.list_in(&key.namespace);
        if is_finished(job).is_some() {
            let left: Vec<_> = pods.into_iter().filter(|pod| owner::controls(job.as_ref(), &pod.metadata)).collect();
            return self.untrack(&left, writes).await.map(|_| None);
        }
        let cache = (&self.pods, Some(TRACKING));
        let pods = owner::claim_with(&self.client, job.as_ref(), &selector, pods, cache, writes).await?;
        let mut run = Run::of(job, spec, pods, Timestamp::now());
        let mut again = None;
        run.judge(&mut again);
        let managed = self.manage(&mut run, &mut again, writes).await;
        self.track(run, writes).await?;
        managed?;
        Ok(again)
    }
}

#[cfg(test)]
mod tests;
