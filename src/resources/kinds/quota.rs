//! ResourceQuota.

use super::pod::spec::resource_amount;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list, map};
use crate::resource::Hooks;
use mini_api::{FieldError, FieldPath, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(crate) const QUOTA: Hooks = Hooks {
    status: &[("status", crate::defaults::Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| validate(&At::root(v).get("spec"), errors),
    validate_update: |new, old, subresource, errors| match subresource {
        Some("status") => {
            for field in ["hard", "used"] {
                amounts(&At::root(new).get("status").get(field), errors);
            }
        }
        _ => {
            let scopes = |v| list(v, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect::<BTreeSet<_>>();
            if scopes(new) != scopes(old) {
                let given = At::root(new).get("spec").get("scopes");
                errors.push(FieldError::invalid(
                    &FieldPath::new("scopes"),
                    given.value.clone(),
                    crate::check::IMMUTABLE,
                ));
            }
        }
    },
    columns: &[
        NAME,
        Column::text("Request", "What is asked for, of what may be."),
        Column::text("Limit", "What may be taken, of what may be."),
        AGE,
    ],
    cells: |v, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in map(v, &["status", "hard"]).into_iter().flatten() {
            let used = match v.text(&["status", "used", name]) {
                "" => "0",
                used => used,
            };
            let column = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{name}: {used}/{}", hard.as_str().unwrap_or_default()));
        }
        vec![columns::name(v), requests.join(", ").into(), limits.join(", ").into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

/// Names of resources without a domain that a quota may count.
pub(super) fn is_standard(name: &str) -> bool {
    let plain = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let counted = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let measured = matches!(plain, "cpu" | "memory" | "ephemeral-storage") || plain.starts_with("hugepages-");
    measured || name == "requests.storage" || counted.contains(&name)
}

fn resource_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        errors.extend(messages.into_iter().map(|m| FieldError::invalid(&at.path, name, m)));
    } else if !name.contains('/') && !is_standard(name) {
        for detail in ["must be a standard resource type or fully qualified", "must be a standard resource for quota"] {
            errors.push(FieldError::invalid(&at.path, name, detail));
        }
    }
}

fn amounts(at: &At<'_>, errors: &mut Errors) {
    for (name, amount) in at.entries() {
        resource_name(name, &amount, errors);
        resource_amount(name, &amount, errors);
    }
}

fn validate(spec: &At<'_>, errors: &mut Errors) {
    let hard = spec.get("hard");
    amounts(&hard, errors);
    let scopes = spec.get("scopes");
    let given: BTreeSet<&str> = scopes.items().iter().map(At::text).collect();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        unfit(&scopes, scope.text(), &hard, errors);
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if given.contains(one) && given.contains(other) {
            errors.push(scopes.invalid("conflicting scopes"));
        }
    }
    for term in spec.get("scopeSelector").get("matchExpressions").items() {
        let (scope, operator, values) = (term.get("scopeName"), term.get("operator"), term.get("values"));
        if !SCOPES.contains(&scope.text()) {
            errors.push(scope.invalid("unsupported scope"));
        }
        unfit(&scope, scope.text(), &hard, errors);
        if !matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass") && operator.text() != "Exists" {
            errors.push(operator.invalid(
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => errors.push(
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            ),
            "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
    }
}

/// Scopes tell pods from pods, or claims from claims: what has none of them cannot be counted by them.
fn unfit(at: &At<'_>, scope: &str, hard: &At<'_>, errors: &mut Errors) {
    for (name, _) in hard.entries().iter().filter(|(name, _)| is_standard(name)) {
        let of_pods = *name == "pods"
            || ["requests.", "limits."].iter().any(|p| name.starts_with(p)) && *name != "requests.storage"
            || matches!(*name, "cpu" | "memory" | "ephemeral-storage");
        let of_claims = matches!(*name, "persistentvolumeclaims" | "requests.storage");
        let fits = match scope {
            "BestEffort" => *name == "pods",
            "VolumeAttributesClass" => of_claims,
            _ => of_pods,
        };
        if !fits {
            errors.push(at.invalid("unsupported scope applied to resource"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(spec: Value) -> Vec<String> {
        let mut errors = Errors::new();
        validate(&At { value: &spec, path: FieldPath::new("spec") }, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_amounts_and_scopes() {
        let hard =
            json!({"pods": "1", "limits.cpu": "1", "count/widgets.example.com": "2", "requests.nvidia.com/gpu": "1"});
        assert!(said(json!({"hard": hard, "scopes": ["NotTerminating"]})).is_empty());
        assert_eq!(
            said(json!({"hard": {"widgets": "1", "pods": "-1"}})),
            [
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified",
                "spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource for quota",
            ]
        );
        assert_eq!(
            said(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]})),
            ["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"]
        );
        assert_eq!(
            said(json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]})),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
    }
}
