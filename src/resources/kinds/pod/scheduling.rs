//! Where a pod may go: affinity, tolerations, spread constraints, scheduling gates.

use crate::check::{At, Errors};
use mini_api::{FieldError, names};
use std::collections::BTreeSet;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn all(spec: &At<'_>, errors: &mut Errors) {
    crate::metadata::labels(&spec.get("nodeSelector"), errors);
    affinity(&spec.get("affinity"), errors);
    tolerations(&spec.get("tolerations"), errors);
    spread(&spec.get("topologySpreadConstraints"), errors);
    let mut seen = BTreeSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        name.messages(names::is_qualified_name(name.text()), errors);
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

fn affinity(at: &At<'_>, errors: &mut Errors) {
    let node = at.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for term in node.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
        weight(&term, errors);
        node_term(&term.get("preference"), errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pods = at.get(field);
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution").items() {
            pod_term(&term, errors);
        }
        for term in pods.get("preferredDuringSchedulingIgnoredDuringExecution").items() {
            weight(&term, errors);
            pod_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(at: &At<'_>, errors: &mut Errors) {
    let weight = at.get("weight");
    if !weight.int().is_some_and(|w| (1..=100).contains(&w)) {
        errors.push(FieldError::invalid(&weight.path, weight.int().unwrap_or(0), "must be in the range 1-100"));
    }
}

pub(crate) fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        node_term(&term, errors);
    }
}

fn node_term(at: &At<'_>, errors: &mut Errors) {
    for e in at.get("matchExpressions").items() {
        let values = e.get("values");
        match e.get("operator").text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if values.items().len() != 1 => {
                errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
            "Gt" | "Lt" => {}
            _ => errors.push(e.get("operator").invalid("not a valid selector operator")),
        }
        let key = e.get("key");
        key.messages(names::is_qualified_name(key.text()), errors);
    }
    for e in at.get("matchFields").items() {
        let (key, operator, values) = (e.get("key"), e.get("operator"), e.get("values"));
        if !matches!(operator.text(), "In" | "NotIn") {
            errors.push(operator.invalid("not a valid selector operator"));
        } else if values.items().len() != 1 {
            errors.push(
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
            );
        }
        if key.text() != "metadata.name" {
            errors.push(key.invalid("not a valid field selector key"));
        }
    }
}

fn pod_term(at: &At<'_>, errors: &mut Errors) {
    label_selector(&at.get("labelSelector"), errors);
    label_selector(&at.get("namespaceSelector"), errors);
    for namespace in at.get("namespaces").items() {
        namespace.messages(names::is_dns1123_label(namespace.text()), errors);
    }
    let key = at.get("topologyKey");
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    for message in names::is_qualified_name(key.text()) {
        errors.push(FieldError::invalid(&key.path, key.text(), message));
    }
}

/// A `meta/v1.LabelSelector`.
pub(crate) fn label_selector(at: &At<'_>, errors: &mut Errors) {
    crate::metadata::labels(&at.get("matchLabels"), errors);
    for e in at.get("matchExpressions").items() {
        let (key, operator, values) = (e.get("key"), e.get("operator"), e.get("values"));
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        key.messages(names::is_qualified_name(key.text()), errors);
        for value in values.items() {
            value.messages(names::is_label_value(value.text()), errors);
        }
    }
}

pub(super) fn tolerations(at: &At<'_>, errors: &mut Errors) {
    for toleration in at.items() {
        let (key, operator) = (toleration.get("key"), toleration.get("operator"));
        let (value, effect) = (toleration.get("value"), toleration.get("effect"));
        if !key.is_empty() {
            key.messages(names::is_qualified_name(key.text()), errors);
        } else if operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&operator.path, operator.text(), detail));
        }
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&effect.path, effect.text(), detail));
        }
        match operator.text() {
            "" | "Equal" => {
                let messages = names::is_label_value(value.text());
                if !messages.is_empty() {
                    errors.push(FieldError::invalid(&operator.path, value.text(), messages.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&operator.path, toleration.value.clone(), detail));
                }
            }
            _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            effect.one_of(EFFECTS, errors);
        }
    }
}

/// The taints of a node.
pub(crate) fn taints(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for taint in at.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.messages(names::is_qualified_name(key.text()), errors);
        let messages = names::is_label_value(value.text());
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&value.path, value.text(), messages.join(";")));
        }
        effect.required_one_of(EFFECTS, errors);
        if !seen.insert((effect.text(), key.text())) {
            let mut twice = taint.duplicate();
            "taints must be unique by key and effect pair".clone_into(&mut twice.detail);
            errors.push(twice);
        }
    }
}

fn spread(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for constraint in at.items() {
        for field in ["maxSkew", "minDomains"] {
            let number = constraint.get(field);
            let asked = field == "maxSkew" || number.is_set();
            if asked && number.int().is_none_or(|n| n <= 0) {
                errors.push(FieldError::invalid(&number.path, number.int().unwrap_or(0), "must be greater than zero"));
            }
        }
        let (key, when) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(key.required("can not be empty"));
        } else {
            key.messages(names::is_qualified_name(key.text()), errors);
        }
        if !matches!(when.text(), "DoNotSchedule" | "ScheduleAnyway") {
            errors.push(when.not_supported(&["DoNotSchedule", "ScheduleAnyway"]));
        }
        if !seen.insert((key.text(), when.text())) {
            let path = constraint.path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, format!("{{{}, {}}}", key.text(), when.text())));
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.get(field).one_of(&["Honor", "Ignore"], errors);
        }
        label_selector(&constraint.get("labelSelector"), errors);
    }
}
