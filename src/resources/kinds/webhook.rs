//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration, and the rules on what a webhook or a policy matches.

use super::pod::spec::label_selector;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{FieldError, names};
use serde_json::Value;
use std::collections::BTreeSet;

/// The versions of AdmissionReview that upstream's server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const CONDITIONS_MAX: usize = 64;

const DEFAULTS: Table = &[
    ("webhooks[].failurePolicy", Default::Str("Fail")),
    ("webhooks[].matchPolicy", Default::Str("Equivalent")),
    ("webhooks[].namespaceSelector", Default::Map),
    ("webhooks[].objectSelector", Default::Map),
    ("webhooks[].timeoutSeconds", Default::Int(10)),
    ("webhooks[].rules[].scope", Default::Str("*")),
    ("webhooks[].clientConfig.service.port", Default::Int(443)),
];

pub(crate) const VALIDATING: Hooks = Hooks {
    default: |v| defaults::apply(DEFAULTS, v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| validate(v, false, errors),
    warnings: |v| {
        let hooks = list(v, &["webhooks"]);
        hooks
            .first()
            .map(|_| "webhooks of admission are kept, but this server does not call them yet".to_owned())
            .into_iter()
            .collect()
    },
    columns: COLUMNS,
    cells: |v, now| vec![columns::name(v), list(v, &["webhooks"]).len().into(), columns::age(v, now)],
    generation: true,
    ..Hooks::NONE
};

pub(crate) const MUTATING: Hooks = Hooks {
    default: |v| {
        defaults::apply(DEFAULTS, v);
        defaults::apply(&[("webhooks[].reinvocationPolicy", Default::Str("Never"))], v);
    },
    validate: |v, errors| validate(v, true, errors),
    ..VALIDATING
};

const COLUMNS: &[Column] = &[NAME, Column::number("Webhooks", "Webhooks of this configuration."), AGE];

fn validate(v: &Value, mutating: bool, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for hook in At::root(v).get("webhooks").items() {
        webhook(&hook, mutating, errors);
        review_versions(&hook.get("admissionReviewVersions"), errors);
        let name = hook.get("name");
        if !name.is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

fn webhook(hook: &At<'_>, mutating: bool, errors: &mut Errors) {
    qualified(&hook.get("name"), errors);
    hook.get("rules").items().iter().for_each(|rule| rule_with_operations(rule, errors));
    hook.get("failurePolicy").one_of(&["Fail", "Ignore"], errors);
    hook.get("matchPolicy").one_of(&["Equivalent", "Exact"], errors);
    let effects = hook.get("sideEffects");
    if effects.is_set() {
        effects.one_of(&["None", "NoneOnDryRun"], errors);
    } else {
        errors.push(effects.required("must specify one of None, NoneOnDryRun"));
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        label_selector(&hook.get(selector), errors);
    }
    if mutating {
        hook.get("reinvocationPolicy").one_of(&["IfNeeded", "Never"], errors);
    }
    let client = hook.get("clientConfig");
    let (url, service) = (client.get("url"), client.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => webhook_service(&service, errors),
        _ => errors.push(client.required("exactly one of url or service is required")),
    }
    match_conditions(&hook.get("matchConditions"), errors);
}

/// A domain of at least three segments.
fn qualified(name: &At<'_>, errors: &mut Errors) {
    let messages = names::is_dns1123_subdomain(name.text());
    if name.is_empty() {
        errors.push(name.required(""));
    } else if !messages.is_empty() {
        errors.push(name.invalid(messages.join(",")));
    } else if name.text().split('.').count() < 3 {
        errors.push(name.invalid("should be a domain with at least three segments separated by dots"));
    }
}

fn review_versions(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(&format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in at.items() {
        if !seen.insert(version.text()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        version.messages(names::is_dns1035_label(version.text()), errors);
    }
    if !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        errors.push(at.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

/// `https://host[/path]`.
pub(crate) fn webhook_url(at: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let invalid = |value: &str, detail: &str| FieldError::invalid(&at.path, value, detail);
    let (rest, fragment) = at.text().split_once('#').unwrap_or((at.text(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    if !scheme.eq_ignore_ascii_case("https") {
        errors.push(invalid(&scheme.to_lowercase(), &format!("'https' is the only allowed URL scheme{FORM}")));
    }
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        errors.push(invalid(host, &format!("host must be provided{FORM}")));
    }
    if let Some(user) = user {
        errors.push(invalid(user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(invalid(fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(invalid(query, "query parameters are not permitted in the URL"));
    }
}

/// A Service that a webhook is reached at.
pub(crate) fn webhook_service(at: &At<'_>, errors: &mut Errors) {
    for field in ["name", "namespace"] {
        let field_at = at.get(field);
        if field_at.is_empty() {
            errors.push(field_at.required(&format!("service {field} is required")));
        }
    }
    service_port(&at.get("port"), errors);
    let path = at.get("path");
    let text = path.text();
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        errors.push(path.invalid("segment[0] may not be empty"));
        return;
    }
    if !text.starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    // Upstream takes the first character for the slash, whether it is one or not.
    let mut characters = text.chars();
    characters.next();
    let steps = characters.as_str();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(path.invalid(format!("segment[{i}] may not be empty")));
        } else {
            let messages = names::is_dns1123_subdomain(step);
            errors.extend(messages.iter().map(|message| path.invalid(format!("segment[{i}]: {message}"))));
        }
    }
}

pub(crate) fn service_port(port: &At<'_>, errors: &mut Errors) {
    let messages = names::is_port_number(port.int().unwrap_or(0));
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        errors.push(FieldError::invalid(&port.path, port.int().unwrap_or(0), detail));
    }
}

pub(crate) fn rule_with_operations(at: &At<'_>, errors: &mut Errors) {
    let operations = at.get("operations");
    operations.must_be_set(errors);
    alone(&operations, "operations", errors);
    for operation in operations.items() {
        operation.one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], errors);
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let field = at.get(field);
        field.must_be_set(errors);
        alone(&field, what, errors);
    }
    at.get("apiVersions").items().iter().for_each(|version| version.must_be_set(errors));
    resources(&at.get("resources"), errors);
    at.get("scope").one_of(&["*", "Cluster", "Namespaced"], errors);
}

/// `*` says everything, so that nothing may stand beside it.
fn alone(at: &At<'_>, what: &str, errors: &mut Errors) {
    let items = at.items();
    if items.len() > 1 && items.iter().any(|item| item.text() == "*") {
        errors.push(at.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

fn resources(at: &At<'_>, errors: &mut Errors) {
    at.must_be_set(errors);
    let items = at.items();
    let (mut all_below, mut below_all) = (BTreeSet::new(), BTreeSet::new());
    let (mut every, mut plain) = (false, false);
    for item in &items {
        let text = item.text();
        if text.is_empty() {
            errors.push(item.required(""));
            continue;
        }
        every |= text == "*";
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_below.contains(resource) {
            errors.push(item.invalid(format!("if '{resource}/*' is present, must not specify {text}")));
        }
        if below_all.contains(sub) {
            errors.push(item.invalid(format!("if '*/{sub}' is present, must not specify {text}")));
        }
        if sub == "*" {
            all_below.insert(resource);
        }
        if resource == "*" {
            below_all.insert(sub);
        }
    }
    if items.len() > 1 && items.iter().any(|item| item.text() == "*/*") {
        errors.push(at.invalid("if '*/*' is present, must not specify other resources"));
    }
    if every && plain {
        errors.push(at.invalid("if '*' is present, must not specify other resources without subresources"));
    }
}

pub(crate) fn match_conditions(at: &At<'_>, errors: &mut Errors) {
    let items = at.items();
    if items.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(&at.path, items.len(), CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for item in items {
        let (name, expression) = (item.get("name"), item.get("expression"));
        if expression.text().trim().is_empty() {
            errors.push(expression.required(""));
        }
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.messages(names::is_qualified_name(name.text()), errors);
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(check: impl Fn(&At<'_>, &mut Errors), value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(&At { value: &value, path: mini_api::FieldPath::new("x") }, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn urls() {
        assert!(errors(webhook_url, json!("https://example.com:8443/a")).is_empty());
        assert_eq!(
            errors(webhook_url, json!("http://u@example.com?a=b#c")),
            [
                "x: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "x: Invalid value: \"u\": user information is not permitted in the URL",
                "x: Invalid value: \"c\": fragments are not permitted in the URL",
                "x: Invalid value: \"a=b\": query parameters are not permitted in the URL",
            ]
        );
        assert_eq!(errors(webhook_url, json!("https:///x")).len(), 1);
    }

    #[test]
    fn services_and_their_paths() {
        let service = |path: &str| json!({"name": "n", "namespace": "s", "port": 443, "path": path});
        assert!(errors(webhook_service, service("/a/b/")).is_empty());
        assert_eq!(
            errors(webhook_service, service("/a//B"))[..1],
            ["x.path: Invalid value: \"/a//B\": segment[1] may not be empty"]
        );
        assert_eq!(
            errors(webhook_service, json!({"port": 0})),
            [
                "x.name: Required value: service name is required",
                "x.namespace: Required value: service namespace is required",
                "x.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ]
        );
    }

    #[test]
    fn stars_stand_alone() {
        let rule = |resources: Value| json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources});
        assert!(errors(rule_with_operations, rule(json!(["pods", "pods/status"]))).is_empty());
        assert_eq!(
            errors(rule_with_operations, rule(json!(["*", "pods"]))),
            [
                "x.resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without \
              subresources"
            ]
        );
        assert_eq!(
            errors(rule_with_operations, rule(json!(["pods/*", "pods/status"]))),
            ["x.resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status"]
        );
        assert_eq!(errors(rule_with_operations, json!({})).len(), 4);
    }
}
