//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings. Expressions are not compiled here.

use super::pod::spec::label_selector;
use super::webhook::{match_conditions, rule_with_operations};
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, UNSET, list};
use crate::defaults::{self, Default};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;

const ANNOTATIONS_MAX: usize = 20;
const VALUE_MAX: usize = 5 * 1024;

fn not_evaluated(_: &Value) -> Vec<String> {
    vec!["policies of admission are kept, but this server does not evaluate them yet".to_owned()]
}

pub(crate) const VALIDATING: Hooks = Hooks {
    default: default_policy,
    name: names::is_dns1123_subdomain,
    validate: validate_validating,
    warnings: not_evaluated,
    columns: &[
        NAME,
        Column::number("Validations", "Rules of the policy."),
        Column::text("ParamKind", "Kind of the policy's parameters."),
        AGE,
    ],
    cells: |v, now| {
        let rules = list(v, &["spec", "validations"]).len();
        vec![columns::name(v), rules.into(), param_kind(v).into(), columns::age(v, now)]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const VALIDATING_BINDING: Hooks = Hooks {
    default: |v| default_match("spec.matchResources", v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        binding(v, errors);
        actions(&At::root(v).get("spec").get("validationActions"), errors);
    },
    columns: &[
        NAME,
        Column::text("PolicyName", "Policy that is bound."),
        Column::text("ParamRef", "Parameters of the policy."),
        AGE,
    ],
    cells: |v, now| {
        vec![columns::name(v), v.text(&["spec", "policyName"]).into(), param_ref(v).into(), columns::age(v, now)]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const MUTATING: Hooks = Hooks {
    validate: validate_mutating,
    warnings: not_evaluated,
    columns: &[
        NAME,
        Column::number("Mutations", "Changes that the policy makes."),
        Column::text("ParamKind", "Kind of the policy's parameters."),
        AGE,
    ],
    cells: |v, now| {
        let mutations = list(v, &["spec", "mutations"]).len();
        vec![columns::name(v), mutations.into(), param_kind(v).into(), columns::age(v, now)]
    },
    ..VALIDATING
};

pub(crate) const MUTATING_BINDING: Hooks = Hooks { validate: binding, ..VALIDATING_BINDING };

fn default_policy(v: &mut Value) {
    defaults::apply(&[("spec.failurePolicy", Default::Str("Fail"))], v);
    default_match("spec.matchConstraints", v);
}

fn default_match(at: &str, v: &mut Value) {
    const TABLE: defaults::Table = &[
        ("matchPolicy", Default::Str("Equivalent")),
        ("namespaceSelector", Default::Map),
        ("objectSelector", Default::Map),
        ("resourceRules|excludeResourceRules[].scope", Default::Str("*")),
    ];
    defaults::apply_at(at, TABLE, v);
}

fn param_kind(v: &Value) -> String {
    match v.get("spec").and_then(|s| s.get("paramKind")).filter(|kind| kind.is_object()) {
        Some(kind) => format!("{}/{}", kind.text(&["apiVersion"]), kind.text(&["kind"])),
        None => UNSET.to_owned(),
    }
}

fn param_ref(v: &Value) -> String {
    let Some(reference) = v.get("spec").and_then(|s| s.get("paramRef")).filter(|r| r.is_object()) else {
        return UNSET.to_owned();
    };
    let what = match reference.text(&["name"]) {
        "" => columns::selector(reference.get("selector")),
        name => name.to_owned(),
    };
    match reference.text(&["namespace"]) {
        "" => format!("*/{what}"),
        namespace => format!("{namespace}/{what}"),
    }
}

/// What both sorts of policies have.
fn head(spec: &At<'_>, errors: &mut Errors) {
    spec.get("failurePolicy").required_one_of(&["Fail", "Ignore"], errors);
    let kind = spec.get("paramKind");
    if kind.is_set() {
        group_kind(&kind, errors);
    }
    let constraints = spec.get("matchConstraints");
    if constraints.is_set() {
        match_resources(&constraints, errors);
        constraints.get("resourceRules").must_be_set(errors);
    } else {
        errors.push(constraints.required(""));
    }
    match_conditions(&spec.get("matchConditions"), errors);
    for variable in spec.get("variables").items() {
        let (name, expression) = (variable.get("name"), variable.get("expression"));
        if name.text().trim().is_empty() {
            errors.push(name.required("name is not specified"));
        } else if !is_identifier(name.text()) {
            errors.push(name.invalid("name is not a valid CEL identifier"));
        }
        if expression.text().trim().is_empty() {
            errors.push(expression.required("expression is not specified"));
        }
    }
}

/// An identifier of CEL that is none of its words.
fn is_identifier(name: &str) -> bool {
    const WORDS: [&str; 21] = [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ];
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&name)
}

fn group_kind(at: &At<'_>, errors: &mut Errors) {
    let (version, kind) = (at.get("apiVersion"), at.get("kind"));
    let parts: Vec<&str> = version.text().split('/').collect();
    match parts.as_slice() {
        _ if version.is_empty() => errors.push(version.required("")),
        [number] => version_part(&version, number, errors),
        [group, number] => {
            let messages = names::is_dns1123_subdomain(group);
            if !group.is_empty() && !messages.is_empty() {
                errors.push(FieldError::invalid(&version.path, *group, messages.join(",")));
            }
            version_part(&version, number, errors);
        }
        _ => errors.push(version.invalid(format!("unexpected GroupVersion string: {}", version.text()))),
    }
    let messages = names::is_dns1035_label(&kind.text().to_lowercase());
    if kind.is_empty() {
        errors.push(kind.required(""));
    } else if !messages.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
        errors.push(kind.invalid(detail));
    }
}

fn version_part(at: &At<'_>, version: &str, errors: &mut Errors) {
    let messages = names::is_dns1035_label(version);
    if version.is_empty() {
        errors.push(at.invalid("version must be specified"));
    } else if !messages.is_empty() {
        errors.push(FieldError::invalid(&at.path, version, messages.join(",")));
    }
}

fn match_resources(at: &At<'_>, errors: &mut Errors) {
    at.get("matchPolicy").required_one_of(&["Equivalent", "Exact"], errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        let selector = at.get(selector);
        if selector.is_set() { label_selector(&selector, errors) } else { errors.push(selector.required("")) }
    }
    for rules in ["resourceRules", "excludeResourceRules"] {
        for rule in at.get(rules).items() {
            let mut seen = BTreeSet::new();
            for name in rule.get("resourceNames").items() {
                name.messages(names::is_path_segment(name.text()), errors);
                if !seen.insert(name.text()) {
                    errors.push(name.duplicate());
                }
            }
            rule_with_operations(&rule, errors);
        }
    }
}

fn validate_validating(v: &Value, errors: &mut Errors) {
    const NONE: &str = "validations or auditAnnotations must contain at least one item";
    let spec = At::root(v).get("spec");
    head(&spec, errors);
    let (validations, annotations) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.extend([validations.required(NONE), annotations.required(NONE)]);
        return;
    }
    validations.items().iter().for_each(|rule| validation(rule, errors));
    let items = annotations.items();
    if items.len() > ANNOTATIONS_MAX {
        errors.push(annotations.invalid(format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations")));
    }
    let mut seen = BTreeSet::new();
    for item in items {
        let (key, value) = (item.get("key"), item.get("valueExpression"));
        if v.name().is_empty() {
            errors.push(key.invalid("requires metadata.name be non-empty"));
        } else {
            let full = format!("{}/{}", v.name(), key.text());
            let messages = names::is_qualified_name(&full);
            errors.extend(messages.into_iter().map(|m| FieldError::invalid(&key.path, full.as_str(), m)));
        }
        match value.text().trim().len() {
            0 => errors.push(value.required("valueExpression is not specified")),
            VALUE_MAX.. => errors.push(value.required(&format!("must not exceed {VALUE_MAX} bytes in length"))),
            _ => {}
        }
        if !seen.insert(key.text()) {
            errors.push(key.duplicate());
        }
    }
}

fn validation(at: &At<'_>, errors: &mut Errors) {
    if at.get("expression").text().trim().is_empty() {
        errors.push(at.get("expression").required("expression is not specified"));
    }
    let (words, message) = (at.get("messageExpression"), at.get("message"));
    if !words.text().is_empty() && words.text().trim().is_empty() {
        errors.push(words.invalid("must be non-empty if specified"));
    }
    if !message.text().is_empty() && message.text().trim().is_empty() {
        errors.push(message.invalid("message must be non-empty if specified"));
    } else if message.text().trim().contains(['\n', '\r']) {
        errors.push(message.invalid("message must not contain line breaks"));
    }
    at.get("reason").one_of(&["Forbidden", "Invalid", "RequestEntityTooLarge"], errors);
}

fn validate_mutating(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    head(&spec, errors);
    spec.get("reinvocationPolicy").required_one_of(&["IfNeeded", "Never"], errors);
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for mutation in mutations.items() {
        let (kind, apply, patch) =
            (mutation.get("patchType"), mutation.get("applyConfiguration"), mutation.get("jsonPatch"));
        let (used, other, words) = match kind.text() {
            "ApplyConfiguration" => (&apply, &patch, "must be specified when patchType is ApplyConfiguration"),
            "JSONPatch" => (&patch, &apply, "must be specified when patchType is JSONPatch"),
            "" => {
                errors.push(kind.required(""));
                continue;
            }
            _ => {
                errors.push(kind.not_supported(&["ApplyConfiguration", "JSONPatch"]));
                continue;
            }
        };
        if !used.is_set() {
            errors.push(used.required(words));
        } else if used.get("expression").text().trim().is_empty() {
            errors.push(used.get("expression").required("expression is not specified"));
        }
        if other.is_set() {
            errors.push(other.invalid(format!("must not be set when patchType is {}", kind.text())));
        }
    }
}

fn binding(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let policy = spec.get("policyName");
    if policy.is_empty() {
        errors.push(policy.required(""));
    } else {
        policy.messages(names::is_dns1123_subdomain(policy.text()), errors);
    }
    let reference = spec.get("paramRef");
    if reference.is_set() {
        param_reference(&reference, errors);
    }
    let resources = spec.get("matchResources");
    if resources.is_set() {
        // Upstream's path is misspelt so.
        match_resources(&At { path: spec.path.child("matchResouces"), ..resources }, errors);
    }
}

fn param_reference(at: &At<'_>, errors: &mut Errors) {
    const EITHER: &str = "name and selector are mutually exclusive";
    let (name, selector, action) = (at.get("name"), at.get("selector"), at.get("parameterNotFoundAction"));
    if !name.is_empty() {
        name.messages(names::is_path_segment(name.text()), errors);
        if selector.is_set() {
            errors.push(name.forbidden(EITHER));
        }
    }
    if selector.is_set() {
        label_selector(&selector, errors);
        if !name.is_empty() {
            errors.push(selector.forbidden(EITHER));
        }
    }
    if name.is_empty() && !selector.is_set() {
        errors.push(at.required("one of name or selector must be specified"));
    }
    action.required_one_of(&["Allow", "Deny"], errors);
}

fn actions(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for action in at.items() {
        action.one_of(&["Audit", "Deny", "Warn"], errors);
        if !seen.insert(action.text()) {
            errors.push(action.duplicate());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.push(at.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API \
             response and headers serves no purpose)",
        ));
    }
    if seen.is_empty() {
        errors.push(at.required("at least one validation action is required"));
    }
}
