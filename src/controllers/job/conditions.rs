//! How a Job stands: when it is lost, when it is done, and the conditions that tell so.
//!
//! An end is told twice: `FailureTarget` or `SuccessCriteriaMet` when it is decided, `Failed` or `Complete` once the
//! last pod is gone.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Run, is_suspended, policy, time};
use crate::pods;

pub(super) const LOST: &str = "FailureTarget";
pub(super) const WON: &str = "SuccessCriteriaMet";

pub(super) fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub(super) fn get<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition; tells whether it changed. One that was never true is not told to be false.
pub(super) fn set(status: &mut JobStatus, condition: JobCondition) -> bool {
    let list = status.conditions.get_or_insert_default();
    match list.iter_mut().find(|present| present.type_ == condition.type_) {
        Some(present) if present.status == condition.status && present.reason == condition.reason => false,
        Some(present) => {
            *present = condition;
            true
        }
        None if condition.status == "False" => false,
        None => {
            list.push(condition);
            true
        }
    }
}

/// The end that a decision announces.
pub(super) fn end_of(decision: &JobCondition, now: Timestamp) -> JobCondition {
    let kind = if decision.type_ == LOST { "Failed" } else { "Complete" };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    condition(kind, "True", &text(&decision.reason), &text(&decision.message), now)
}

impl Run<'_> {
    pub(super) fn decide(&mut self, kind: &str, reason: &str, message: &str) {
        if self.verdict.is_none() {
            self.verdict = Some(condition(kind, "True", reason, message, self.now));
        }
    }

    /// Whether the Job is lost or won by what its pods and its clock tell.
    pub(super) fn judge(&mut self, again: &mut Option<Duration>) {
        let decided = |kind: &str| get(&self.status, kind).filter(|c| c.status == "True");
        if let Some(decision) = decided(WON).or_else(|| decided(LOST)) {
            self.verdict = Some(end_of(decision, self.now));
        } else {
            self.judge_failures(again);
        }
        self.read_indexes();
        if let Some(failed) = self.indexed.as_ref().and_then(|indexed| indexed.failed.as_ref()) {
            let (lost, all) = (failed.total(), failed.total() + self.succeeded);
            if self.spec.max_failed_indexes.is_some_and(|most| lost > most) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                self.decide(LOST, "MaxFailedIndexesExceeded", message);
            } else if lost > 0 && all >= self.spec.completions.unwrap_or_default() {
                self.decide(LOST, "FailedIndexes", "Job has failed indexes");
            }
        }
        let met = self.indexed.as_ref().and_then(|indexed| policy::success(self.job, &indexed.succeeded));
        if let Some(message) = met {
            self.decide(WON, "SuccessPolicy", &message);
        }
    }

    fn judge_failures(&mut self, again: &mut Option<Duration>) {
        let failed = self.pods.iter().filter(|pod| policy::is_failed(self.job, pod));
        let fatal = failed.filter_map(|pod| policy::judge(self.job, pod).job).next();
        if let Some(message) = fatal {
            self.decide(LOST, "PodFailurePolicy", &message);
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failed > limit || self.restarts_exceed(limit) {
            self.decide(LOST, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        let started = self.status.start_time.as_ref().filter(|_| !is_suspended(self.spec));
        if let (Some(seconds), Some(start)) = (self.spec.active_deadline_seconds, started) {
            match time::left(start.0, seconds, self.now) {
                Some(left) => Self::sooner(again, Some(left)),
                None => self.decide(LOST, "DeadlineExceeded", "Job was active longer than specified deadline"),
            }
        }
    }

    /// Of pods that start their containers again, each restart is a failure.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let statuses = running.filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let restarts: i32 = statuses.map(|container| container.restart_count).sum();
        restarts > 0 && restarts >= limit
    }
}
