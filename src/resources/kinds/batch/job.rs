//! What a Job's spec may say.

use super::template;
use crate::check::{At, Errors};
use mini_api::{FieldError, names};
use serde_json::Value;

const MOST_RULES: usize = 20;
const MOST_PARALLEL: i64 = 100_000;
/// Of these the back-off limits per index can be kept whatever fails.
const MANY_COMPLETIONS: i64 = 100_000;

/// `name` is empty for a template; `whole` is false for one.
pub(super) fn validate(name: &str, spec: &At<'_>, whole: bool, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative(errors);
    }
    spec.get("completionMode").one_of(&["Indexed", "NonIndexed"], errors);
    let indexed = spec.get("completionMode").text() == "Indexed";
    if indexed {
        validate_indexed(name, spec, errors);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if per_index.is_set() && !indexed {
        errors.push(per_index.invalid("requires indexed completion mode"));
    }
    if spec.get("maxFailedIndexes").is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        if manager.text().len() > 63 {
            errors.push(FieldError::too_long(&manager.path, 63));
        }
        if !manager.text().contains('/') {
            errors.push(manager.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")"));
        }
    }
    if whole && !spec.get("selector").is_set() {
        errors.push(spec.get("selector").required(""));
    }
    let pods = spec.get("template");
    template::validate(&pods, errors);
    let policy = pods.get("spec").get("restartPolicy");
    if !matches!(policy.text(), "OnFailure" | "Never") {
        errors.push(FieldError::required(&policy.path, "valid values: \"OnFailure\", \"Never\""));
    }
    let failures = spec.get("podFailurePolicy");
    let replacement = spec.get("podReplacementPolicy");
    if failures.is_set() {
        if policy.text() != "Never" {
            errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        replacement.one_of(&["Failed"], errors);
        validate_failures(&failures, spec, errors);
    } else {
        replacement.one_of(&["Failed", "TerminatingOrFailed"], errors);
    }
    let success = spec.get("successPolicy");
    if success.is_set() {
        if !indexed {
            errors.push(success.invalid("requires indexed completion mode"));
        } else {
            validate_success(&success, spec.get("completions").int().unwrap_or(0), errors);
        }
    }
}

fn validate_indexed(name: &str, spec: &At<'_>, errors: &mut Errors) {
    let completions = spec.get("completions");
    let Some(count) = completions.int() else {
        errors.push(completions.required("when completion mode is Indexed"));
        return;
    };
    let parallelism = spec.get("parallelism");
    if parallelism.int().is_some_and(|parallel| parallel > MOST_PARALLEL) {
        errors.push(
            parallelism
                .invalid(format!("must be less than or equal to {MOST_PARALLEL} when completion mode is Indexed")),
        );
    }
    if spec.get("backoffLimitPerIndex").is_set() && count > MANY_COMPLETIONS && !spec.get("maxFailedIndexes").is_set() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.push(spec.get("maxFailedIndexes").required(&detail));
    }
    let most = spec.get("maxFailedIndexes");
    if most.int().is_some_and(|most| most > count) {
        errors.push(most.invalid("must be less than or equal to completions"));
    }
    // The last pod's host name is the longest.
    if !name.is_empty() && count > 0 {
        let host = format!("{name}-{}", count - 1);
        for why in names::is_dns1123_label(&host) {
            let path = mini_api::FieldPath::new("metadata").child("name");
            let detail = format!("will not able to create pod with invalid DNS label {host}: {why}");
            errors.push(FieldError::invalid(&path, Value::from(name), detail));
        }
    }
}

fn validate_failures(policy: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    let rules = policy.get("rules");
    if rules.items().len() > MOST_RULES {
        errors.push(rules.invalid(format!("must have at most {MOST_RULES} items")));
    }
    let pods = spec.get("template").get("spec");
    let containers: Vec<_> = ["containers", "initContainers"].iter().flat_map(|list| pods.get(list).items()).collect();
    for rule in rules.items() {
        let action = rule.get("action");
        action.required_one_of(&["Count", "FailIndex", "FailJob", "Ignore"], errors);
        if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_set() {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (false, false) => {
                errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
        for condition in conditions.items() {
            condition.get("type").must_be_set(errors);
            condition.get("status").required_one_of(&["False", "True", "Unknown"], errors);
        }
        if !codes.is_set() {
            continue;
        }
        codes.get("operator").required_one_of(&["In", "NotIn"], errors);
        let name = codes.get("containerName");
        if name.is_set() && !containers.iter().any(|container| container.get("name").text() == name.text()) {
            errors.push(name.invalid("must be one of the container or initContainer names in the pod template"));
        }
        let values = codes.get("values");
        let numbers: Vec<_> = values.items().iter().filter_map(At::int).collect();
        if numbers.is_empty() {
            errors.push(values.invalid("at least one value is required"));
        }
        if numbers.len() > 255 {
            errors.push(values.invalid("must have at most 255 items"));
        }
        if !numbers.is_sorted() {
            errors.push(values.invalid("must be ordered"));
        }
        for pair in values.items().windows(2) {
            if let [one, two] = pair
                && one.value == two.value
            {
                errors.push(two.duplicate());
            }
        }
        for value in values.items().iter().filter(|value| value.int() == Some(0)) {
            if codes.get("operator").text() == "In" {
                errors.push(value.invalid("must not be 0 for the In operator"));
            }
        }
    }
}

fn validate_success(policy: &At<'_>, completions: i64, errors: &mut Errors) {
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.items().len() > MOST_RULES {
        errors.push(rules.invalid(format!("must have at most {MOST_RULES} items")));
    }
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        let mut total = None;
        if indexes.is_set() {
            match indexes_total(indexes.text(), completions) {
                Ok(found) => total = Some(found),
                Err(why) => errors.push(indexes.invalid(format!("error parsing succeededIndexes: {why}"))),
            }
        }
        let Some(asked) = count.int() else { continue };
        if asked < 1 {
            errors.push(count.invalid("must be greater than 0"));
        }
        if asked > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(count.invalid(detail));
        }
        if let Some(total) = total.filter(|total| asked > *total) {
            let detail = format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(count.invalid(detail));
        }
    }
}

/// How many indexes a list such as `1,3-5` names, all below `completions` and in order.
pub(super) fn indexes_total(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, -1);
    for part in text.split(',') {
        let number = |text: &str| {
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (first, end) = part.split_once('-').map_or((part, None), |(first, end)| (first, Some(end)));
        let first = number(first)?;
        let end = end.map_or(Ok(first), number)?;
        if first <= last || end < first {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {}",
                if first <= last { first } else { end }
            ));
        }
        if end >= completions {
            return Err("too large index".to_owned());
        }
        total += end - first + 1;
        last = end;
    }
    Ok(total)
}

pub(super) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let started = At::root(old).get("status").get("startTime").is_set();
    let (new, old) = (At::root(new).get("spec"), At::root(old).get("spec"));
    for field in
        ["selector", "completionMode", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy"]
    {
        new.get(field).immutable(&old.get(field), errors);
    }
    let completions = new.get("completions");
    if new.get("completionMode").text() != "Indexed" {
        completions.immutable(&old.get("completions"), errors);
    } else if completions.value != old.get("completions").value && completions.value != new.get("parallelism").value {
        errors.push(completions.invalid("can only be modified in tandem with spec.parallelism"));
    }
    // Where its pods are to run may still change before the first of them.
    let movable = old.get("suspend").is_true() && !started;
    let mut template = new.get("template").value.clone();
    if movable {
        let before = old.get("template");
        for path in [
            "/metadata/annotations",
            "/metadata/labels",
            "/spec/nodeSelector",
            "/spec/tolerations",
            "/spec/schedulingGates",
            "/spec/affinity",
        ] {
            restore(&mut template, before.value, path);
        }
    }
    let template = At { value: &template, path: new.get("template").path };
    template.immutable(&old.get("template"), errors);
}

/// Puts what `old` has at a path into `new`.
fn restore(new: &mut Value, old: &Value, path: &str) {
    let Some((parent, name)) = path.rsplit_once('/') else { return };
    let Some(map) = new.pointer_mut(parent).and_then(Value::as_object_mut) else { return };
    match old.pointer(path) {
        Some(value) => map.insert(name.to_owned(), value.clone()),
        None => map.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use crate::kinds::tests::{errors, update_errors};
    use serde_json::{Value, json};

    fn spec(extra: &Value) -> Value {
        let mut spec = json!({"completions": 3, "completionMode": "Indexed", "template": {"spec":
            {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:1"}]}}});
        for (name, value) in extra.as_object().into_iter().flatten() {
            spec[name] = value.clone();
        }
        json!({"spec": spec})
    }

    fn refused(extra: Value, wanted: &str) {
        let found = errors("Job", spec(&extra));
        assert!(found.len() == 1 && found[0].contains(wanted), "{wanted}: {found:?}");
    }

    #[test]
    fn policies_are_checked_by_upstreams_rules() {
        assert_eq!(errors("Job", spec(&json!({}))), Vec::<String>::new());
        let failure = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
        let codes = |values: Value| json!({"operator": "In", "values": values});
        refused(failure(json!({"action": "FailJob"})), "specifying one of OnExitCodes and OnPodConditions is required");
        refused(
            failure(json!({"action": "FailIndex", "onExitCodes": codes(json!([1]))})),
            "requires the backoffLimitPerIndex",
        );
        refused(failure(json!({"action": "Ignore", "onExitCodes": codes(json!([2, 1]))})), "must be ordered");
        refused(
            failure(json!({"action": "Ignore", "onExitCodes": codes(json!([0]))})),
            "must not be 0 for the In operator",
        );
        let success = |rule: Value| json!({"successPolicy": {"rules": [rule]}});
        refused(success(json!({})), "at least one of succeededCount or succeededIndexes");
        refused(success(json!({"succeededIndexes": "0,9"})), "too large index");
        refused(
            success(json!({"succeededIndexes": "0", "succeededCount": 2})),
            "the number of indexes in the specified",
        );
        assert_eq!(
            errors("Job", spec(&success(json!({"succeededIndexes": "0,2", "succeededCount": 1})))),
            Vec::<String>::new()
        );
        refused(json!({"maxFailedIndexes": 1}), "when maxFailedIndexes is specified");
        refused(json!({"managedBy": "me"}), "must be a domain-prefixed path");
        refused(json!({"completionMode": "NonIndexed", "backoffLimitPerIndex": 1}), "requires indexed completion mode");
    }

    #[test]
    fn little_of_a_job_may_change() {
        let none = Vec::<String>::new();
        assert_eq!(update_errors("Job", spec(&json!({})), spec(&json!({"parallelism": 5}))), none);
        let tandem = update_errors("Job", spec(&json!({})), spec(&json!({"completions": 5})));
        assert!(tandem[0].contains("can only be modified in tandem with spec.parallelism"), "{tandem:?}");
        assert_eq!(update_errors("Job", spec(&json!({})), spec(&json!({"completions": 5, "parallelism": 5}))), none);
        let picky = |suspend: bool, key: &str, value: Value| {
            let mut job = spec(&json!({"suspend": suspend}));
            job["spec"]["template"]["spec"][key] = value;
            job
        };
        let old = |suspend| spec(&json!({"suspend": suspend}));
        let selector = json!({"disk": "ssd"});
        assert_eq!(update_errors("Job", old(true), picky(true, "nodeSelector", selector.clone())), none);
        assert_eq!(update_errors("Job", old(false), picky(false, "nodeSelector", selector)).len(), 1);
        assert_eq!(update_errors("Job", old(true), picky(true, "hostname", json!("h"))).len(), 1);
    }
}
