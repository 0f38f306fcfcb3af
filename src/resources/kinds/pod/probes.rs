//! Probes and lifecycle handlers.

use crate::check::{At, Errors};
use mini_api::{FieldError, names};

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Seconds and thresholds of a probe; a liveness or startup probe succeeds at once (`once`).
pub(super) fn probe(at: &At<'_>, once: bool, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    handler(at, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        at.get(field).non_negative(errors);
    }
    let grace = at.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|n| n <= 0) {
        errors.push(grace.invalid("must be greater than 0"));
    }
    let success = at.get("successThreshold");
    if once && success.int().is_some_and(|n| n != 1) {
        errors.push(success.invalid("must be 1"));
    }
}

pub(super) fn lifecycle(at: &At<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = at.get(hook);
        if hook.is_set() {
            handler(&hook, errors);
        }
    }
}

fn handler(at: &At<'_>, errors: &mut Errors) {
    let mut found = false;
    for name in HANDLERS {
        let one = at.get(name);
        if !one.is_set() {
            continue;
        }
        if found {
            errors.push(one.forbidden("may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match name {
            "exec" => one.get("command").must_be_set(errors),
            "httpGet" => http_get(&one, errors),
            "grpc" => one.get("port").port(errors),
            "sleep" => one.get("seconds").non_negative(errors),
            _ => one.get("port").port_or_name(errors),
        }
    }
    if !found {
        errors.push(at.required("must specify a handler type"));
    }
}

fn http_get(at: &At<'_>, errors: &mut Errors) {
    at.get("path").must_be_set(errors);
    at.get("port").port_or_name(errors);
    at.get("scheme").one_of(&["HTTP", "HTTPS"], errors);
    let headers = at.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").text();
        for message in names::is_http_header_name(name) {
            errors.push(FieldError::invalid(&headers.path, name, message));
        }
    }
}
