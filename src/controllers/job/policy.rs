//! What a Job's author says about failures and success of its pods.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::indexes::Indexes;
use crate::pods;

/// What a pod's failure means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// It counts towards the back-off limit.
    pub(super) counts: bool,
    /// Its index is lost.
    pub(super) index: bool,
    /// The whole Job is lost, and why.
    pub(super) job: Option<String>,
}

/// Whether a pod failed, as this Job sees it: one that is being deleted may be replaced at once.
pub(super) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pods::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_failed_only(job),
    }
}

/// Whether pods are replaced only once they ended.
pub(super) fn replaces_failed_only(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| {
        spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
    })
}

/// The meaning of a failed pod: that of the first rule it matches.
pub(super) fn judge(job: &Job, pod: &Pod) -> Meaning {
    let counted = Meaning { counts: true, ..Meaning::default() };
    let rules = job.spec.as_ref().and_then(|spec| Some(&spec.pod_failure_policy.as_ref()?.rules));
    let place = || {
        let meta = &pod.metadata;
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    };
    for (at, rule) in rules.into_iter().flatten().enumerate() {
        let (place, action) = (place(), rule.action.as_str());
        let why = if let Some(wanted) = &rule.on_exit_codes {
            exit_code(pod, wanted).map(|(container, code)| {
                let name = &container.name;
                format!(
                    "Container {name} for pod {place} failed with exit code {code} matching {action} rule at index {at}"
                )
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            condition(pod, patterns)
                .map(|found| format!("Pod {place} has condition {} matching {action} rule at index {at}", found.type_))
        };
        let Some(why) = why else { continue };
        return match action {
            "Ignore" => Meaning::default(),
            "FailIndex" => Meaning { index: true, ..counted },
            "FailJob" => Meaning { job: Some(why), ..counted },
            _ => counted,
        };
    }
    counted
}

fn exit_code<'a>(pod: &'a Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a ContainerStatus, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let named =
        |container: &&ContainerStatus| wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
    containers.filter(named).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = wanted.values.contains(&code);
        let fits = code != 0 && if wanted.operator == "In" { listed } else { !listed };
        fits.then_some((container, code))
    })
}

fn condition<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| {
        let fits = |pattern: &PodFailurePolicyOnPodConditionsPattern| {
            pattern.type_ == condition.type_ && pattern.status.as_deref().unwrap_or("True") == condition.status
        };
        patterns.iter().any(fits)
    })
}

/// The first success rule that the completed indexes meet, in upstream's words.
pub(super) fn success(job: &Job, succeeded: &Indexes) -> Option<String> {
    let spec = job.spec.as_ref()?;
    let completions = spec.completions?;
    let rules = &spec.success_policy.as_ref()?.rules;
    let met = rules.iter().position(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions));
        let there = wanted.as_ref().map_or_else(|| succeeded.total(), |wanted| succeeded.common(wanted));
        match (rule.succeeded_count, wanted) {
            (Some(count), _) => there >= count,
            (None, Some(wanted)) => there >= wanted.total(),
            (None, None) => false,
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(spec: Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": spec})).unwrap()
    }

    fn with_policy(rules: Value) -> Job {
        job(json!({"template": {"spec": {"containers": []}}, "podFailurePolicy": {"rules": rules}}))
    }

    fn failed(code: i32, condition: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "a"}, "status": {"phase": "Failed",
            "conditions": [{"type": condition, "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}))
        .unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let job = with_policy(json!([
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]));
        assert_eq!(judge(&job, &failed(42, "DisruptionTarget")), Meaning::default());
        let fatal = judge(&job, &failed(42, "Other"));
        let why = "Container c for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(fatal.job.as_deref(), Some(why));
        assert!(judge(&job, &failed(7, "Other")).index);
        assert_eq!(judge(&job, &failed(1, "Other")), Meaning { counts: true, ..Meaning::default() });
    }

    #[test]
    fn success_rules_ask_for_indexes_or_a_number_of_them() {
        let job = |rules: Value| {
            job(json!({"completions": 10, "template": {"spec": {"containers": []}}, "successPolicy": {"rules": rules}}))
        };
        let done = Indexes::parse("0-2", 10);
        assert_eq!(success(&job(json!([{"succeededIndexes": "0-3"}])), &done), None);
        assert_eq!(
            success(&job(json!([{"succeededIndexes": "5"}, {"succeededIndexes": "0-3", "succeededCount": 3}])), &done),
            Some("Matched rules at index 1".to_owned())
        );
        assert!(success(&job(json!([{"succeededCount": 3}])), &done).is_some());
    }
}
