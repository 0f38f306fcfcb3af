//! What may change in a pod that exists.

use super::scheduling;
use crate::check::{At, Errors};
use mini_api::{FieldError, FieldPath, names};
use serde_json::Value;
use std::net::IpAddr;

const ONLY: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                    existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                    previously negative)";

pub(super) fn validate(new: &Value, old: &Value, subresource: Option<&str>, errors: &mut Errors) {
    match subresource {
        None => main(&At::root(new).get("spec"), &At::root(old).get("spec"), errors),
        Some("status") => status(&At::root(new), &At::root(old), errors),
        Some("ephemeralcontainers") => ephemeral(&At::root(new).get("spec"), &At::root(old).get("spec"), errors),
        Some("resize") => resize(&At::root(new).get("spec"), &At::root(old).get("spec"), errors),
        Some(_) => {}
    }
}

fn main(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let mut munged = new.value.clone();
    for list in ["containers", "initContainers"] {
        let (ours, theirs) = (new.get(list), old.get(list));
        if ours.items().len() != theirs.items().len() {
            errors.push(ours.forbidden("pod updates may not add or remove containers"));
            return;
        }
        let images: Vec<Value> = theirs.items().iter().map(|c| c.get("image").value.clone()).collect();
        let containers = munged.get_mut(list).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            container["image"] = image;
        }
    }
    let (deadline, old_deadline) = (new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"));
    match (deadline.int(), old_deadline.int()) {
        (Some(now), Some(before)) if now > before => {
            errors.push(deadline.invalid("must be less than or equal to previous value"));
            return;
        }
        (None, Some(_)) => errors.push(deadline.invalid("must not update from a positive integer to nil value")),
        _ => {}
    }
    let (grace, old_grace) = (new.get("terminationGracePeriodSeconds"), old.get("terminationGracePeriodSeconds"));
    let grace_fixed = grace.int() == Some(1) && old_grace.int().is_some_and(|n| n < 0);
    only_added_tolerations(&new.get("tolerations"), &old.get("tolerations"), errors);

    // A pod that waits on gates may lose gates and become more selective about nodes.
    let (gates, old_gates) = (new.get("schedulingGates"), old.get("schedulingGates"));
    let gated = !old_gates.is_empty();
    if gated {
        let before: Vec<&str> = old_gates.items().iter().map(|g| g.get("name").text()).collect();
        if gates.items().iter().any(|g| !before.contains(&g.get("name").text())) {
            errors.push(gates.forbidden("only deletion is allowed, but found new scheduling gates"));
        }
    } else if !gates.is_empty() {
        errors.push(gates.forbidden("only deletion is allowed, but found new scheduling gates"));
    }

    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if grace_fixed {
        free.push("terminationGracePeriodSeconds");
    }
    if gated {
        free.extend(["nodeSelector", "affinity"]);
    }
    let changed: Vec<&str> = keys(&munged)
        .chain(keys(old.value).filter(|k| munged.get(k).is_none()))
        .filter(|k| !free.contains(k) && munged.get(k) != old.value.get(k))
        .collect();
    if !changed.is_empty() {
        errors.push(new.forbidden(&format!("{ONLY}\nfields that differ: {}", changed.join(", "))));
    }
}

fn keys(v: &Value) -> impl Iterator<Item = &str> {
    v.as_object().into_iter().flatten().map(|(k, _)| k.as_str())
}

fn only_added_tolerations(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let bare = |t: &At<'_>| {
        let mut t = t.value.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let now: Vec<Value> = new.items().iter().map(bare).collect();
    if old.items().iter().any(|t| !now.contains(&bare(t))) {
        errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
    } else {
        scheduling::tolerations(new, errors);
    }
}

fn status(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let status = new.get("status");
    let nominated = status.get("nominatedNodeName");
    if !nominated.is_empty() {
        nominated.messages(names::is_dns1123_subdomain(nominated.text()), errors);
    }
    let policy = old.get("spec").get("restartPolicy").text();
    for list in ["containerStatuses", "initContainerStatuses"] {
        if policy == "Always" || (list == "initContainerStatuses" && has_sidecar(old)) {
            continue;
        }
        let now = status.get(list);
        for (i, before) in old.get("status").get(list).items().iter().enumerate() {
            let ended = before.get("state").get("terminated");
            if !ended.is_set() || (policy == "OnFailure" && ended.get("exitCode").int() != Some(0)) {
                continue;
            }
            let revived = now.items().iter().any(|c| {
                c.get("name").text() == before.get("name").text() && !c.get("state").get("terminated").is_set()
            });
            if revived {
                let path = now.path.index(i).child("state");
                errors.push(FieldError::forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
    let ips = status.get("podIPs");
    let mut families = Vec::new();
    for item in ips.items() {
        match item.get("ip").text().parse::<IpAddr>() {
            Ok(ip) => families.push(ip.is_ipv4()),
            Err(_) => errors.push(FieldError::invalid(
                &item.path,
                item.get("ip").text(),
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )),
        }
    }
    if families.iter().filter(|v4| **v4).count() > 1 || families.iter().filter(|v4| !**v4).count() > 1 {
        errors.push(ips.invalid("may specify no more than one IP for each IP family"));
    }
}

fn has_sidecar(pod: &At<'_>) -> bool {
    pod.get("spec").get("initContainers").items().iter().any(|c| c.get("restartPolicy").text() == "Always")
}

fn ephemeral(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let now = new.get("ephemeralContainers");
    for before in old.get("ephemeralContainers").items() {
        let name = before.get("name").text();
        match now.items().iter().find(|c| c.get("name").text() == name) {
            None => {
                errors.push(now.forbidden(&format!("existing ephemeral containers \"{name}\" may not be removed\n")))
            }
            Some(same) if same.value != before.value => {
                errors.push(now.forbidden(&format!("existing ephemeral containers \"{name}\" may not be changed\n")));
            }
            Some(_) => {}
        }
    }
}

fn resize(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    for list in ["containers", "initContainers"] {
        let bare = |at: &At<'_>| {
            let mut c = at.value.clone();
            if let Some(map) = c.as_object_mut() {
                map.remove("resources");
                map.remove("resizePolicy");
            }
            c
        };
        let (now, before) = (new.get(list).items(), old.get(list).items());
        if now.len() != before.len() || now.iter().zip(&before).any(|(a, b)| bare(a) != bare(b)) {
            errors.push(FieldError::forbidden(&FieldPath::new("spec"), "only cpu and memory resources are mutable"));
        }
    }
}
