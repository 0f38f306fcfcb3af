//! Making the pods that are missing and deleting those that are too many.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mini_client::{EventType, reference};

use super::{Controller, INDEX, Run, TRACKING, conditions, count, index, is_suspended, is_tracked, policy, time};
use crate::driver::{Error, Writes};
use crate::pod_control::pod_of;
use crate::pods;

/// Pods created or deleted by one reconcile.
const BURST: usize = 500;
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// A made-up ending takes the rest of a name's 63 characters.
const LONGEST_PREFIX: usize = 58;

/// How often the index of a pod failed before this pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i32,
    ignored: i32,
}

impl Failures {
    pub(super) fn all(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }
}

pub(super) fn failures(pod: &Pod) -> Failures {
    let number = |name: &str| {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(name)).and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    Failures { counted: number(FAILURES), ignored: number(IGNORED) }
}

impl Controller {
    /// Brings the number of pods to what the Job's state asks for.
    pub(super) async fn manage(
        &self,
        run: &mut Run<'_>,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let terminating = run.pods.iter().filter(|pod| !pods::is_active(pod) && !pods::is_finished(pod)).count();
        run.status.terminating = Some(count(terminating));
        run.status.active = Some(count(run.active.len()));
        run.status.ready = Some(count(run.active.iter().filter(|pod| pods::is_ready(pod)).count()));
        if run.verdict.is_some() {
            let going = std::mem::take(&mut run.active);
            return self.remove(run, going, false, writes).await;
        }
        let mut outcome = Ok(());
        if run.job.metadata.deletion_timestamp.is_none() {
            outcome = self.scale(run, terminating, again, writes).await;
        }
        let none_active = run.status.active.unwrap_or_default() == 0;
        let done = match run.spec.completions {
            Some(completions) => run.succeeded >= completions && none_active,
            None => run.succeeded > 0 && none_active,
        };
        if done {
            run.decide(conditions::WON, "CompletionsReached", "Reached expected number of succeeded pods");
        } else if run.job.metadata.deletion_timestamp.is_none() {
            self.tell_suspension(run);
        }
        outcome
    }

    fn tell_suspension(&self, run: &mut Run<'_>) {
        let (status, reason, event, message) = if is_suspended(run.spec) {
            ("True", "JobSuspended", "Suspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Resumed", "Job resumed")
        };
        let condition = conditions::condition("Suspended", status, reason, message, run.now);
        if conditions::set(&mut run.status, condition) {
            self.control.recorder.event(&reference(run.job), EventType::Normal, event, message);
            // The deadline counts from here on.
            run.status.start_time = (!is_suspended(run.spec)).then_some(Time(run.now));
        }
    }

    async fn scale(
        &self,
        run: &mut Run<'_>,
        terminating: usize,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let active = run.active.len();
        let wanted = if is_suspended(run.spec) { 0 } else { run.wanted() };
        let mut excess = run.excess(active.saturating_sub(wanted));
        if !excess.is_empty() {
            excess.truncate(BURST);
            let gone: HashSet<_> = excess.iter().map(|pod| pod.metadata.uid.clone()).collect();
            run.active.retain(|pod| !gone.contains(&pod.metadata.uid));
            return self.remove(run, excess, true, writes).await;
        }
        let leaving = if policy::replaces_failed_only(run.job) { terminating } else { 0 };
        let missing = wanted.saturating_sub(leaving).saturating_sub(active).min(BURST);
        if missing == 0 || is_suspended(run.spec) {
            return Ok(());
        }
        if run.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = run.back_off()
        {
            Run::sooner(again, Some(wait));
            return Ok(());
        }
        let pods: Vec<Pod> = match &run.indexed {
            Some(_) => run.pending(missing, again).into_iter().map(|index| run.pod(Some(index))).collect(),
            None => std::iter::repeat_n(run.pod(None), missing).collect(),
        };
        let asked = pods.len();
        let outcome = self.control.create(run.job, pods, writes).await;
        let made = outcome.as_ref().map_or(0, |made| *made).min(asked);
        run.status.active = Some(count(active + made));
        outcome.map(drop)
    }

    /// Deletes pods. Those that are merely too many are not to be counted as failures, so they lose their finalizer
    /// first.
    async fn remove(
        &self,
        run: &mut Run<'_>,
        pods: Vec<Arc<Pod>>,
        uncounted: bool,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        if pods.is_empty() {
            return Ok(());
        }
        if uncounted {
            self.untrack(&pods, writes).await?;
            let gone: HashSet<_> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
            run.pods.retain(|pod| !gone.contains(&pod.metadata.uid));
        }
        self.control.delete(run.job, &pods, writes).await?;
        let (all, ready) = (count(pods.len()), count(pods.iter().filter(|pod| pods::is_ready(pod)).count()));
        let status = &mut run.status;
        status.active = status.active.map(|active| active - all);
        status.ready = status.ready.map(|before| before - ready);
        status.terminating = status.terminating.map(|before| before + all);
        Ok(())
    }
}

impl Run<'_> {
    /// How many pods should be active.
    fn wanted(&self) -> usize {
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or_default();
        let Some(completions) = self.spec.completions else {
            // A work queue: once one pod found it empty, no more are made.
            return if self.succeeded > 0 { self.active.len() } else { parallelism };
        };
        let lost = self.indexed.as_ref().and_then(|indexed| indexed.failed.as_ref()).map_or(0, super::Indexes::total);
        usize::try_from(completions - self.succeeded - lost).unwrap_or_default().min(parallelism)
    }

    /// Active pods to be deleted: those of no or a doubled index, and the least useful until `at_least` are found.
    fn excess(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut left = self.active.clone();
        pods::sort_for_deletion(&mut left);
        let mut excess = Vec::new();
        if self.indexed.is_some() {
            let mut last: HashMap<i32, usize> = HashMap::new();
            for (at, pod) in left.iter().enumerate() {
                last.extend(index(self.spec, pod).map(|index| (index, at)));
            }
            let keep: HashSet<usize> = last.into_values().collect();
            let (kept, doubled): (Vec<_>, Vec<_>) = left.into_iter().enumerate().partition(|(at, _)| keep.contains(at));
            excess.extend(doubled.into_iter().map(|(_, pod)| pod));
            left = kept.into_iter().map(|(_, pod)| pod).collect();
        }
        let more = at_least.saturating_sub(excess.len());
        excess.extend(left.into_iter().take(more));
        excess
    }

    /// How long to wait after failures since the last success.
    fn back_off(&self) -> Option<Duration> {
        let ended = |failed: bool| {
            self.pods.iter().filter(move |pod| {
                if failed {
                    policy::is_failed(self.job, pod) && policy::judge(self.job, pod).counts
                } else {
                    pods::phase(pod) == "Succeeded"
                }
            })
        };
        let success = ended(false).filter_map(|pod| time::finished(pod)).max();
        let failures = ended(true).filter_map(|pod| time::finished(pod));
        let failures: Vec<_> = failures.filter(|at| success.is_none_or(|success| *at > success)).collect();
        time::back_off(u32::try_from(failures.len()).unwrap_or(u32::MAX), failures.iter().max().copied(), self.now)
    }

    /// The first `missing` indexes to make pods for, without those whose last failure is too near.
    fn pending(&self, missing: usize, again: &mut Option<Duration>) -> Vec<i32> {
        let Some(indexed) = &self.indexed else { return Vec::new() };
        let leaving = policy::replaces_failed_only(self.job);
        let taken = self.pods.iter().filter(|pod| pods::is_active(pod) || (leaving && !pods::is_finished(pod)));
        let taken: HashSet<i32> = taken.filter_map(|pod| index(self.spec, pod)).collect();
        let free = |index: &i32| {
            !taken.contains(index)
                && !indexed.succeeded.has(*index)
                && indexed.failed.as_ref().is_none_or(|failed| !failed.has(*index))
        };
        let mut waits = None;
        let ready = (0..self.spec.completions.unwrap_or_default()).filter(free).take(missing).filter(|index| {
            let wait = indexed.kept.get(index).and_then(|pod| {
                let failures = u32::try_from(failures(pod).all()).unwrap_or_default().saturating_add(1);
                time::back_off(failures, time::finished(pod), self.now)
            });
            Run::sooner(&mut waits, wait);
            wait.is_none()
        });
        let ready = ready.collect();
        Run::sooner(again, waits);
        ready
    }

    /// The pod to be made, for an index where the Job has them.
    fn pod(&self, index: Option<i32>) -> Pod {
        let mut pod = pod_of(self.job, &self.spec.template);
        pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
        let Some(index) = index else { return pod };
        let job = self.job.metadata.name.as_deref().unwrap_or_default();
        let ending = format!("-{index}-");
        let room = LONGEST_PREFIX.saturating_sub(ending.len());
        pod.metadata.generate_name = Some(format!("{}{ending}", job.get(..room).unwrap_or(job)));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(INDEX.to_owned(), index.to_string());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.to_owned(), index.to_string());
        if self.spec.backoff_limit_per_index.is_some() {
            let last = self.indexed.as_ref().and_then(|indexed| indexed.kept.get(&index));
            let next = last.map(|last| self.failures_with(last)).unwrap_or_default();
            annotations.insert(FAILURES.to_owned(), next.counted.to_string());
            if next.ignored > 0 {
                annotations.insert(IGNORED.to_owned(), next.ignored.to_string());
            }
        }
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(format!("{job}-{index}"));
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                let env = container.env.get_or_insert_default();
                if env.iter().all(|variable| variable.name != VARIABLE) {
                    env.push(variable());
                }
            }
        }
        pod
    }

    /// The failures of an index with that of its last pod.
    fn failures_with(&self, last: &Pod) -> Failures {
        let mut failures = failures(last);
        if policy::judge(self.job, last).counts {
            failures.counted += 1;
        } else {
            failures.ignored += 1;
        }
        failures
    }
}

const VARIABLE: &str = "JOB_COMPLETION_INDEX";

fn variable() -> EnvVar {
    let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: VARIABLE.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

/// Whether a pod may lose its finalizer now: its end is known, or nobody asks for it.
pub(super) fn is_settled(run: &Run<'_>, pod: &Pod, failed: bool) -> bool {
    if !is_tracked(pod) {
        return false;
    }
    if run.job.metadata.deletion_timestamp.is_some() || run.verdict.is_some() || pods::phase(pod) == "Succeeded" {
        return true;
    }
    let kept = |index: i32| run.indexed.as_ref().and_then(|indexed| indexed.kept.get(&index));
    failed && index(run.spec, pod).and_then(kept).is_none_or(|kept| kept.metadata.uid != pod.metadata.uid)
}
