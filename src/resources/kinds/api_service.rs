//! APIService. The groups of this server are local ones; requests are not forwarded to other servers.

use super::webhook::service_port;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list};
use crate::defaults::{self, Default};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::{Value, json};

const GROUP_MAX: i64 = 20_000;
const VERSION_MAX: i64 = 1000;

pub(crate) const SERVICE: Hooks = Hooks {
    default: |v| defaults::apply(&[("spec.service.port", Default::Int(443))], v),
    status: &[("status", Default::Map)],
    prepare_create: |v| {
        let remote = v.get("spec").and_then(|s| s.get("service")).is_some_and(Value::is_object);
        let (status, reason, message) = if remote {
            ("False", "NotForwarded", "this server does not forward requests to other API servers")
        } else {
            ("True", "Local", "Local APIServices are always available")
        };
        v["status"] = json!({"conditions": [{"type": "Available", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": mini_api::time::now()}]});
    },
    validate,
    validate_update: |new, _, subresource, errors| {
        if subresource == Some("status") {
            for condition in At::root(new).get("status").get("conditions").items() {
                condition.get("status").one_of(&["True", "False", "Unknown"], errors);
            }
        }
    },
    columns: &[
        NAME,
        Column::text("Service", "Where the group is served."),
        Column::text("Available", "Whether the group can be had."),
        AGE,
    ],
    cells: |v, now| {
        let service = match v.get("spec").and_then(|s| s.get("service")).filter(|s| s.is_object()) {
            Some(service) => format!("{}/{}", service.text(&["namespace"]), service.text(&["name"])),
            None => "Local".to_owned(),
        };
        let available = list(v, &["status", "conditions"]).iter().find(|c| c.text(&["type"]) == "Available");
        let available = match available.map(|c| (c.text(&["status"]), c.text(&["reason"]))) {
            Some(("True", _)) => "True".to_owned(),
            Some((status, reason)) => format!("{status} ({reason})"),
            None => "Unknown".to_owned(),
        };
        vec![columns::name(v), service.into(), available.into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

fn validate(v: &Value, errors: &mut Errors) {
    let (root, spec) = (At::root(v), At::root(v).get("spec"));
    let (group, version, service) = (spec.get("group"), spec.get("version"), spec.get("service"));
    let name = root.get("metadata").get("name");
    let required = format!("{}.{}", version.text(), group.text());
    if !name.is_empty() && names::is_path_segment(name.text()).is_empty() && name.text() != required {
        errors.push(name.invalid(format!("must be `spec.version+\".\"+spec.group`: {required:?}")));
    }
    if group.is_empty() && version.text() != "v1" {
        errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        group.messages(names::is_dns1123_subdomain(group.text()), errors);
    }
    let messages = names::is_dns1035_label(version.text());
    errors.extend(messages.into_iter().map(|m| FieldError::invalid(&version.path, version.text(), m)));
    for (field, most) in [("groupPriorityMinimum", GROUP_MAX), ("versionPriority", VERSION_MAX)] {
        let at = spec.get(field);
        let number = at.int().unwrap_or(0);
        if !(1..=most).contains(&number) {
            errors.push(FieldError::invalid(&at.path, number, format!("must be positive and less than {most}")));
        }
    }
    let (bundle, insecure) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            let size = format!("{} bytes", super::config::decoded_len(bundle.text()));
            errors.push(FieldError::invalid(&bundle.path, size, "local APIServices may not have a caBundle"));
        }
        if insecure.is_true() {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    }
    for field in ["namespace", "name"] {
        service.get(field).must_be_set(errors);
    }
    service_port(&service.get("port"), errors);
    if insecure.is_true() && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
}
