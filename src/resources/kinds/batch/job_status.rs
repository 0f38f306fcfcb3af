//! What may be said of a Job's end: upstream's rules for whoever runs Jobs. A field that was wrong before and does not
//! change may stay as it is, so that the rest can be told.

use super::job::indexes_total;
use crate::check::{At, Errors};
use mini_api::{FieldError, FieldErrorType};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (job, before) = (Job::of(new), Job::of(old));
    job.counts(errors);
    job.ends(&before, errors);
    job.times(&before, errors);
    job.indexes(&before, errors);
    job.keeps(&before, errors);
}

struct Job<'a> {
    spec: At<'a>,
    status: At<'a>,
}

impl<'a> Job<'a> {
    fn of(job: &'a Value) -> Self {
        let root = At::root(job);
        Self { spec: root.get("spec"), status: root.get("status") }
    }

    fn is(&self, condition: &str) -> bool {
        let conditions = self.status.get("conditions").items();
        conditions.iter().any(|c| c.get("type").text() == condition && c.get("status").text() == "True")
    }

    fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }

    fn is_indexed(&self) -> bool {
        self.spec.get("completionMode").text() == "Indexed"
    }

    fn count(&self, field: &str) -> i64 {
        self.status.get(field).int().unwrap_or(0)
    }

    fn changes(&self, before: &Self, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.status.get(field).value != before.status.get(field).value)
    }

    fn turns(&self, before: &Self, conditions: &[&str]) -> bool {
        conditions.iter().any(|condition| self.is(condition) != before.is(condition))
    }

    /// A rule about conditions, which shows none of them.
    fn conditions(&self, detail: &str, errors: &mut Errors) {
        let path = self.status.get("conditions").path;
        errors.push(FieldError { kind: FieldErrorType::Invalid, path, value: None, detail: detail.to_owned() });
    }

    fn counts(&self, errors: &mut Errors) {
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            self.status.get(field).non_negative(errors);
        }
        let mut seen = BTreeSet::new();
        for list in ["succeeded", "failed"] {
            for pod in self.status.get("uncountedTerminatedPods").get(list).items() {
                if pod.is_empty() {
                    errors.push(pod.invalid("must not be empty"));
                } else if !seen.insert(pod.text()) {
                    errors.push(pod.duplicate());
                }
            }
        }
    }

    fn ends(&self, before: &Self, errors: &mut Errors) {
        let (complete, failed) = (self.is("Complete"), self.is("Failed"));
        let (target, met) = (self.is("FailureTarget"), self.is("SuccessCriteriaMet"));
        let turns = |conditions: &[&str]| self.turns(before, conditions);
        for (broken, detail) in [
            (
                turns(&["Complete", "Failed"]) && complete && failed,
                "cannot set Complete=True and Failed=true conditions",
            ),
            (
                turns(&["Complete", "FailureTarget"]) && complete && target,
                "cannot set Complete=True and FailureTarget=true conditions",
            ),
            (
                turns(&["Failed", "FailureTarget"]) && failed && !target,
                "cannot set Failed=True condition without the FailureTarget=true condition",
            ),
            (
                turns(&["Complete", "SuccessCriteriaMet"]) && complete && !met,
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            ),
            (met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
            (met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        ] {
            if broken {
                self.conditions(detail, errors);
            }
        }
        if !self.is_finished() {
            return;
        }
        let finishes = self.is_finished() != before.is_finished();
        for field in ["active", "terminating"] {
            if (finishes || self.changes(before, &[field])) && self.count(field) > 0 {
                errors.push(self.status.get(field).invalid(format!("{field}>0 is invalid for finished job")));
            }
        }
        let uncounted = self.status.get("uncountedTerminatedPods");
        let listed = !uncounted.get("succeeded").is_empty() || !uncounted.get("failed").is_empty();
        if (finishes || self.changes(before, &["uncountedTerminatedPods"])) && listed {
            errors.push(uncounted.invalid("uncountedTerminatedPods needs to be empty for finished job"));
        }
        // What ends while it is suspended has no time of its start.
        let start = self.status.get("startTime");
        let asked = finishes || self.changes(before, &["startTime"]);
        if asked && !start.is_set() && !self.spec.get("suspend").is_true() {
            errors.push(start.required("startTime is required for finished job"));
        }
    }

    fn times(&self, before: &Self, errors: &mut Errors) {
        let (start, end) = (self.status.get("startTime"), self.status.get("completionTime"));
        let complete = self.is("Complete");
        if self.turns(before, &["Complete"]) || self.changes(before, &["completionTime"]) {
            if end.is_set() && !complete {
                errors.push(end.invalid("cannot set completionTime when there is no Complete=True condition"));
            }
            if !end.is_set() && complete {
                errors.push(end.required("completionTime is required for Complete jobs"));
            }
        }
        // Both are written alike, so that the earlier one sorts first.
        let early = start.is_set() && end.is_set() && end.text() < start.text();
        if early && self.changes(before, &["startTime", "completionTime"]) {
            errors.push(end.invalid("completionTime cannot be set before startTime"));
        }
        if end.is_set() && before.status.get("completionTime").is_set() && self.changes(before, &["completionTime"]) {
            errors.push(end.invalid("completionTime cannot be mutated"));
        }
        let started = before.status.get("startTime").is_set();
        if started && self.changes(before, &["startTime"]) && !self.spec.get("suspend").is_true() {
            errors.push(start.required("startTime cannot be removed for unsuspended job"));
        }
    }

    fn indexes(&self, before: &Self, errors: &mut Errors) {
        let (done, lost) = (self.status.get("completedIndexes"), self.status.get("failedIndexes"));
        let completions = self.spec.get("completions").int();
        let per_index = self.spec.get("backoffLimitPerIndex").is_set();
        let total = |at: &At<'_>| match (completions, at.text()) {
            (None, _) | (_, "") => Ok(0),
            (Some(completions), text) => indexes_total(text, completions),
        };
        if self.changes(before, &["completedIndexes"]) {
            if let Err(why) = total(&done) {
                errors.push(done.invalid(format!("error parsing completedIndexes: {why}")));
            }
            if !done.is_empty() && !self.is_indexed() {
                errors.push(done.invalid("cannot set non-empty completedIndexes when non-indexed completion mode"));
            }
        }
        if self.changes(before, &["failedIndexes"]) {
            if per_index && let Err(why) = total(&lost) {
                errors.push(lost.invalid(format!("error parsing failedIndexes: {why}")));
            }
            if !per_index && lost.is_set() {
                errors.push(lost.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
            }
        }
    }

    /// What is told of an end is not taken back, and what was counted stays counted.
    fn keeps(&self, before: &Self, errors: &mut Errors) {
        for condition in ["Failed", "Complete", "FailureTarget"] {
            if before.is(condition) && !self.is(condition) {
                self.conditions(&format!("cannot disable the terminal {condition}=True condition"), errors);
            }
        }
        let parallel = self.spec.get("completions").value == self.spec.get("parallelism").value;
        for (field, kept) in [("failed", true), ("succeeded", !self.is_indexed() || !parallel)] {
            if kept && self.count(field) < before.count(field) {
                let path = self.status.get(field).path;
                let detail = format!("cannot decrease the {field} counter");
                errors.push(FieldError::invalid(&path, self.count(field), detail));
            }
        }
        if self.changes(before, &["ready", "active"]) && self.count("ready") > self.count("active") {
            errors.push(self.status.get("ready").invalid("cannot set more ready pods than active"));
        }
        match (before.is("SuccessCriteriaMet"), self.is("SuccessCriteriaMet")) {
            (true, false) => self.conditions("cannot disable the SuccessCriteriaMet=True condition", errors),
            (false, true) => {
                for end in ["Complete", "Failed"].into_iter().filter(|end| before.is(end)) {
                    let detail =
                        format!("cannot set SuccessCriteriaMet=True for Job already has {end}=true conditions");
                    self.conditions(&detail, errors);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(old: Value, new: Value) -> Vec<String> {
        let job = |status: Value| json!({"spec": {"completions": 3, "parallelism": 1}, "status": status});
        let mut errors = Vec::new();
        validate_update(&job(new), &job(old), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    fn ended(conditions: &[&str]) -> Value {
        let conditions: Vec<_> = conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        json!({"startTime": "2026-01-01T00:00:00Z", "conditions": conditions})
    }

    #[test]
    fn an_end_is_told_in_upstreams_order() {
        let won = ended(&["SuccessCriteriaMet"]);
        let mut done = ended(&["SuccessCriteriaMet", "Complete"]);
        assert_eq!(
            refused(won.clone(), done.clone()),
            ["status.completionTime: Required value: completionTime is required for Complete jobs"]
        );
        done["completionTime"] = json!("2026-01-01T00:00:09Z");
        assert!(refused(won.clone(), done.clone()).is_empty());
        done["active"] = json!(1);
        assert_eq!(refused(won, done), ["status.active: Invalid value: 1: active>0 is invalid for finished job"]);
        let rash = refused(json!({}), ended(&["Failed"]));
        assert_eq!(
            rash,
            [
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"
            ]
        );
        assert!(refused(ended(&["FailureTarget"]), ended(&["FailureTarget", "Failed"])).is_empty());
        let undone = refused(ended(&["FailureTarget", "Failed"]), ended(&["FailureTarget"]));
        assert_eq!(undone, ["status.conditions: Invalid value: cannot disable the terminal Failed=True condition"]);
    }

    #[test]
    fn what_was_counted_stays_counted() {
        assert_eq!(
            refused(json!({"failed": 2, "succeeded": 1}), json!({"failed": 1})),
            [
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
                "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
            ]
        );
        assert_eq!(
            refused(json!({}), json!({"completedIndexes": "0,7", "ready": 1, "active": 1})),
            [
                "status.completedIndexes: Invalid value: \"0,7\": error parsing completedIndexes: too large index",
                "status.completedIndexes: Invalid value: \"0,7\": cannot set non-empty completedIndexes when non-indexed \
                 completion mode",
            ]
        );
    }
}
