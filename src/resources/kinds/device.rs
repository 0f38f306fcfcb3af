//! The kinds of `resource.k8s.io`: classes of devices, claims on them, slices that publish them, taints. Nothing here
//! allocates devices; expressions are not compiled.

use super::pod::spec::node_selector;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const SELECTORS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const DEVICES_MAX: usize = 128;
/// Of devices with taints or counters.
const ADVANCED_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 32;
const CONSUMERS_MAX: usize = 256;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;
const DRIVER_MAX: usize = 63;
const POOL_MAX: usize = 253;

pub(crate) const CLASS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        selectors(&spec.get("selectors"), errors);
        let config = spec.get("config");
        at_most(&config, CONFIGS_MAX, errors);
        config.items().iter().for_each(|c| opaque(c, errors));
        let extended = spec.get("extendedResourceName");
        if extended.is_set() {
            extended.messages(names::is_qualified_name(extended.text()), errors);
        }
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CLAIM: Hooks = Hooks {
    default: |v| default_claim("spec", v),
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| claim(&At::root(v).get("spec"), errors),
    validate_update: |new, old, subresource, errors| {
        if subresource == Some("status") {
            claim_status(new, old, errors);
        } else {
            At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
        }
    },
    columns: &[NAME, Column::text("State", "Whether devices are allocated, and used."), AGE],
    cells: |v, now| {
        let has = |field: &str| v.get("status").and_then(|s| s.get(field)).is_some_and(|f| !f.is_null());
        let mut states = Vec::new();
        if v.is_deleting() {
            states.push("deleted");
        }
        if has("allocation") {
            states.push("allocated");
            if !list(v, &["status", "reservedFor"]).is_empty() {
                states.push("reserved");
            }
        } else if states.is_empty() {
            states.push("pending");
        }
        vec![columns::name(v), states.join(",").into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

pub(crate) const TEMPLATE: Hooks = Hooks {
    default: |v| default_claim("spec.spec", v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        crate::metadata::labels(&spec.get("metadata").get("labels"), errors);
        crate::metadata::annotations(&spec.get("metadata").get("annotations"), errors);
        claim(&spec.get("spec"), errors);
    },
    validate_update: |new, old, _, errors| {
        At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
    },
    ..Hooks::NONE
};

pub(crate) const SLICE: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| slice(&At::root(v).get("spec"), errors),
    validate_update: |new, old, _, errors| {
        let (new, old) = (At::root(new).get("spec"), At::root(old).get("spec"));
        new.get("pool").get("name").immutable(&old.get("pool").get("name"), errors);
        for field in ["driver", "nodeName"] {
            new.get(field).immutable(&old.get(field), errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Node", "Node of the devices."),
        Column::text("Driver", "Driver that publishes them."),
        Column::text("Pool", "Pool they belong to."),
        AGE,
    ],
    cells: |v, now| {
        vec![
            columns::name(v),
            v.text(&["spec", "nodeName"]).into(),
            v.text(&["spec", "driver"]).into(),
            v.text(&["spec", "pool", "name"]).into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const TAINT: Hooks = Hooks {
    default: |v| {
        if v.pointer("/spec/taint").is_some_and(Value::is_object) && v.text(&["spec", "taint", "timeAdded"]).is_empty()
        {
            v["spec"]["taint"]["timeAdded"] = mini_api::time::now().into();
        }
    },
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        let selector = spec.get("deviceSelector");
        if !selector.get("driver").is_empty() {
            driver(&selector.get("driver"), errors);
        }
        if !selector.get("pool").is_empty() {
            pool(&selector.get("pool"), errors);
        }
        if !selector.get("device").is_empty() {
            let device = selector.get("device");
            device.messages(names::is_dns1123_label(device.text()), errors);
        }
        taint(&spec.get("taint"), errors);
    },
    columns: &[
        NAME,
        Column::text("Key", "Key of the taint."),
        Column::text("Value", "Value of the taint."),
        Column::text("Effect", "What the taint does to pods."),
        Column::text("TimeAdded", "Time since the taint was added."),
        AGE,
    ],
    cells: |v, now| {
        let taint = |field: &str| v.text(&["spec", "taint", field]);
        let added = match taint("timeAdded") {
            "" => String::new(),
            at => columns::since(at, now),
        };
        vec![
            columns::name(v),
            taint("key").into(),
            taint("value").into(),
            taint("effect").into(),
            added.into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

fn default_claim(at: &str, v: &mut Value) {
    const TABLE: Table = &[
        ("devices.requests[].exactly.allocationMode", Default::Str("ExactCount")),
        ("devices.requests[].firstAvailable[].allocationMode", Default::Str("ExactCount")),
        ("devices.requests[].exactly.tolerations[].operator", Default::Str("Equal")),
        ("devices.requests[].firstAvailable[].tolerations[].operator", Default::Str("Equal")),
    ];
    defaults::apply_at(at, TABLE, v);
    let mut count = |request: &mut Value| {
        if request.text(&["allocationMode"]) == "ExactCount" {
            defaults::apply(&[("count", Default::NonZero(1))], request);
        }
    };
    for request in ["exactly", "firstAvailable[]"] {
        defaults::each(v, &format!("{at}.devices.requests[].{request}"), &mut count);
    }
}

fn at_most(at: &At<'_>, max: usize, errors: &mut Errors) {
    if at.items().len() > max {
        errors.push(FieldError::too_many(&at.path, at.items().len(), max));
    }
}

/// Refuses what `key` says twice.
fn distinct<'a>(items: &[At<'a>], key: impl Fn(&At<'a>) -> At<'a>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(key(item).text().to_owned()) {
            errors.push(FieldError::duplicate(&item.path, key(item).text()));
        }
    }
}

fn driver(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if at.text().len() > DRIVER_MAX {
        errors.push(FieldError::too_long(&at.path, DRIVER_MAX));
    }
    at.messages(names::is_dns1123_subdomain(&at.text().to_lowercase()), errors);
}

fn pool(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if at.text().len() > POOL_MAX {
        errors.push(FieldError::too_long(&at.path, POOL_MAX));
    }
    for part in at.text().split('/') {
        errors.extend(names::is_dns1123_subdomain(part).into_iter().map(|m| FieldError::invalid(&at.path, part, m)));
    }
}

fn selectors(at: &At<'_>, errors: &mut Errors) {
    at_most(at, SELECTORS_MAX, errors);
    for selector in at.items() {
        let expression = selector.get("cel").get("expression");
        if !selector.get("cel").is_set() {
            errors.push(selector.get("cel").required(""));
        } else if expression.text().len() > EXPRESSION_MAX {
            errors.push(FieldError::too_long(&expression.path, EXPRESSION_MAX));
        }
    }
}

fn opaque(at: &At<'_>, errors: &mut Errors) {
    let opaque = at.get("opaque");
    if !opaque.is_set() {
        errors.push(opaque.required(""));
        return;
    }
    driver(&opaque.get("driver"), errors);
    let parameters = opaque.get("parameters");
    match parameters.value {
        Value::Null => errors.push(parameters.required("")),
        Value::Object(_) => {
            if parameters.value.to_string().len() > PARAMETERS_MAX {
                errors.push(FieldError::too_long(&parameters.path, PARAMETERS_MAX));
            }
        }
        _ => errors.push(FieldError::invalid(
            &parameters.path,
            "<value omitted>",
            "parameters must be a valid JSON object",
        )),
    }
}

/// Names of requests, and of what each may be met by instead.
type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn claim(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    let items = requests.items();
    let known: Requests<'_> = items
        .iter()
        .map(|r| {
            let alternatives = list(r.value, &["firstAvailable"]).iter().map(|a| a.text(&["name"]));
            (r.value.text(&["name"]), alternatives.collect())
        })
        .collect();
    at_most(&requests, REQUESTS_MAX, errors);
    items.iter().for_each(|r| request(r, errors));
    distinct(&items, |r| r.get("name"), errors);
    let constraints = devices.get("constraints");
    at_most(&constraints, CONSTRAINTS_MAX, errors);
    for constraint in constraints.items() {
        references(&constraint.get("requests"), &known, errors);
        let attributes = ["matchAttribute", "distinctAttribute"].map(|field| constraint.get(field));
        match attributes.iter().find(|a| a.is_set()) {
            Some(attribute) => full_name(attribute, errors),
            None => errors.push(constraint.required(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            )),
        }
    }
    let config = devices.get("config");
    at_most(&config, CONFIGS_MAX, errors);
    for entry in config.items() {
        references(&entry.get("requests"), &known, errors);
        opaque(&entry, errors);
    }
}

fn request(at: &At<'_>, errors: &mut Errors) {
    let (name, exactly, first) = (at.get("name"), at.get("exactly"), at.get("firstAvailable"));
    name.messages(names::is_dns1123_label(name.text()), errors);
    match (exactly.is_set(), !first.is_empty()) {
        (false, false) => errors.push(at.required("exactly one of `exactly` or `firstAvailable` is required")),
        (true, true) => errors.push(FieldError::invalid(
            &at.path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (true, false) => what(&exactly, errors),
        (false, true) => {
            at_most(&first, ALTERNATIVES_MAX, errors);
            let items = first.items();
            for alternative in &items {
                let name = alternative.get("name");
                name.messages(names::is_dns1123_label(name.text()), errors);
                what(alternative, errors);
            }
            distinct(&items, |r| r.get("name"), errors);
        }
    }
}

/// Which devices, and how many.
fn what(at: &At<'_>, errors: &mut Errors) {
    let (class, mode, count) = (at.get("deviceClassName"), at.get("allocationMode"), at.get("count"));
    if class.is_empty() {
        errors.push(class.required(""));
    } else {
        class.messages(names::is_dns1123_subdomain(class.text()), errors);
    }
    selectors(&at.get("selectors"), errors);
    let number = count.int().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => {
            errors.push(count.invalid("must not be specified when allocationMode is 'All'"));
        }
        "ExactCount" if number <= 0 => {
            errors.push(FieldError::invalid(&count.path, number, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        _ => errors.push(FieldError::not_supported(&mode.path, mode.text(), &["All", "ExactCount"])),
    }
    for toleration in at.get("tolerations").items() {
        let (key, operator, value) = (toleration.get("key"), toleration.get("operator"), toleration.get("value"));
        if !key.is_empty() {
            key.messages(names::is_qualified_name(key.text()), errors);
        }
        match operator.text() {
            "Exists" if !value.is_empty() => {
                errors.push(value.invalid("must be empty for operator `Exists`"));
            }
            "Equal" if key.is_empty() => {
                errors.push(FieldError::invalid(
                    &operator.path,
                    "Equal",
                    "must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ));
            }
            "Equal" => value.messages(names::is_label_value(value.text()), errors),
            "Exists" => {}
            _ => errors.push(FieldError::not_supported(&operator.path, operator.text(), &["Equal", "Exists"])),
        }
        toleration.get("effect").one_of(&["NoExecute", "NoSchedule", "None"], errors);
    }
}

fn references(at: &At<'_>, known: &Requests<'_>, errors: &mut Errors) {
    const DETAIL: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    at_most(at, REQUESTS_MAX, errors);
    let items = at.items();
    for item in &items {
        let mut parts = item.text().splitn(3, '/');
        let (request, sub, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if more.is_some() {
            errors.push(item.invalid(DETAIL));
            continue;
        }
        for part in std::iter::once(request).chain(sub) {
            errors.extend(names::is_dns1123_label(part).into_iter().map(|m| FieldError::invalid(&item.path, part, m)));
        }
        let found = known.get(request).is_some_and(|subs| sub.is_none_or(|sub| subs.contains(sub)));
        if !found {
            errors.push(item.invalid(DETAIL));
        }
    }
    distinct(&items, Clone::clone, errors);
}

/// `domain/name`.
fn full_name(at: &At<'_>, errors: &mut Errors) {
    let (domain, name) = at.text().split_once('/').unwrap_or(("", at.text()));
    if at.is_empty() {
        errors.push(at.required("name is required"));
    } else if domain.is_empty() {
        errors.push(at.invalid("must include a domain"));
    } else {
        errors
            .extend(names::is_dns1123_subdomain(domain).into_iter().map(|m| FieldError::invalid(&at.path, domain, m)));
    }
    let identifier =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if !at.is_empty() && (name.is_empty() || !identifier) {
        errors.push(FieldError::invalid(&at.path, name, "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"));
    }
}

fn claim_status(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::root(new).get("status");
    let before = At::root(old).get("status");
    let reserved = status.get("reservedFor");
    at_most(&reserved, CONSUMERS_MAX, errors);
    let items = reserved.items();
    for consumer in &items {
        for field in ["resource", "name", "uid"] {
            consumer.get(field).must_be_set(errors);
        }
    }
    distinct(&items, |c| c.get("uid"), errors);
    let allocation = status.get("allocation");
    if !items.is_empty() {
        let older = before.get("reservedFor");
        let known = older.items();
        if !allocation.is_set() {
            errors.push(reserved.forbidden("may not be specified when `allocated` is not set"));
        } else if new.is_deleting() && items.iter().any(|item| !known.iter().any(|k| k.value == item.value)) {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(reserved.forbidden(detail));
        }
    }
    let older = before.get("allocation");
    if older.is_set() && allocation.is_set() {
        allocation.immutable(&older, errors);
    }
}

fn slice(spec: &At<'_>, errors: &mut Errors) {
    driver(&spec.get("driver"), errors);
    let at = spec.get("pool");
    pool(&at.get("name"), errors);
    let (count, generation) = (at.get("resourceSliceCount"), at.get("generation"));
    if count.int().unwrap_or(0) <= 0 {
        errors.push(FieldError::invalid(&count.path, count.int().unwrap_or(0), "must be greater than zero"));
    }
    if generation.int().is_some_and(|n| n < 0) {
        errors.push(generation.invalid("must be greater than or equal to zero"));
    }
    let mut set = Vec::new();
    let node = spec.get("nodeName");
    if node.is_set() && node.text().is_empty() {
        errors.push(node.invalid("must be either unset or set to a non-empty string"));
    } else if node.is_set() {
        set.push("`nodeName`");
        node.messages(names::is_dns1123_subdomain(node.text()), errors);
    }
    let selector = spec.get("nodeSelector");
    if selector.is_set() {
        set.push("`nodeSelector`");
        node_selector(&selector, errors);
        let terms = selector.get("nodeSelectorTerms");
        if terms.items().len() != 1 {
            errors.push(terms.invalid("must have exactly one node selector term"));
        }
    }
    for (field, name) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        let at = spec.get(field);
        if at.is_true() {
            set.push(name);
        } else if at.is_set() {
            errors.push(at.invalid("must be either unset or set to true"));
        }
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.push(spec.required(ONE)),
        1 => {}
        _ => {
            let detail = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid(&spec.path, format!("{{{}}}", set.join(", ")), detail));
        }
    }
    devices(spec, errors);
}

fn devices(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    if spec.get("sharedCounters").is_set() && devices.is_set() {
        errors.push(FieldError::invalid(&spec.path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let items = devices.items();
    let advanced = items.iter().any(|d| !d.get("taints").is_empty() || !d.get("consumesCounters").is_empty());
    at_most(&devices, if advanced { ADVANCED_MAX } else { DEVICES_MAX }, errors);
    for device in &items {
        let name = device.get("name");
        name.messages(names::is_dns1123_label(name.text()), errors);
        let size = ["attributes", "capacity"].iter().map(|f| device.get(f).entries().len()).sum::<usize>();
        if size > ATTRIBUTES_MAX {
            let detail = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
            errors.push(FieldError::invalid(&device.path, size, detail));
        }
        for (_, attribute) in device.get("attributes").entries() {
            let values = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];
            match values.iter().filter(|f| attribute.get(f).is_set()).count() {
                0 => errors.push(attribute.required("exactly one value must be specified")),
                1 => {}
                _ => errors.push(attribute.invalid("exactly one value must be specified")),
            }
        }
        device.get("taints").items().iter().for_each(|t| taint(t, errors));
        let own = ["nodeName", "nodeSelector", "allNodes"].iter().filter(|f| device.get(f).is_set()).count();
        let each = spec.get("perDeviceNodeSelection").is_true();
        if each && own == 0 {
            errors.push(device.required(
                "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
                 set to true in the ResourceSlice spec",
            ));
        } else if !each && own > 0 {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set \
                          to true in the ResourceSlice spec";
            errors.push(FieldError::invalid(&device.path, Value::Null, detail));
        }
    }
    distinct(&items, |d| d.get("name"), errors);
}

fn taint(at: &At<'_>, errors: &mut Errors) {
    let (key, value, effect) = (at.get("key"), at.get("value"), at.get("effect"));
    key.messages(names::is_qualified_name(key.text()), errors);
    if !value.is_empty() {
        value.messages(names::is_label_value(value.text()), errors);
    }
    effect.required_one_of(&["NoExecute", "NoSchedule", "None"], errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(v: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        claim(&At::root(v).get("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn claims() {
        let mut v = json!({"spec": {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}],
            "constraints": [{"requests": ["b"], "matchAttribute": "example.com/x"}]}}});
        default_claim("spec", &mut v);
        assert_eq!(
            v["spec"]["devices"]["requests"][0]["exactly"],
            json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1})
        );
        assert_eq!(
            said(&v),
            [
                "spec.devices.constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the claim or the \
              name of a request and a subrequest separated by '/'"
            ]
        );
        assert_eq!(
            said(&json!({"spec": {"devices": {"requests": [{"name": "a"}]}}})),
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"]
        );
    }

    #[test]
    fn slices() {
        let mut errors = Errors::new();
        let v = json!({"spec": {"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n",
            "allNodes": true, "devices": [{"name": "a"}, {"name": "a"}]}});
        slice(&At::root(&v).get("spec"), &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of"), "{said:?}");
        assert_eq!(said[1], "spec.devices[1]: Duplicate value: \"a\"");
    }
}
