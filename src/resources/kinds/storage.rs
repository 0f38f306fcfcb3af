//! StorageClass, VolumeAttributesClass, and what CSI drivers tell about themselves.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, UNSET, list, text_or};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DRIVER_MAX: usize = 63;
const NODE_ID_MAX: usize = 256;

pub(crate) const CLASS: Hooks = Hooks {
    default: |v| {
        const TABLE: Table =
            &[("reclaimPolicy", Default::Str("Delete")), ("volumeBindingMode", Default::Str("Immediate"))];
        defaults::apply(TABLE, v);
    },
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let root = At::root(v);
        let provisioner = root.get("provisioner");
        if provisioner.is_empty() {
            errors.push(provisioner.required(""));
        } else {
            provisioner.messages(names::is_qualified_name(&provisioner.text().to_lowercase()), errors);
        }
        root.get("reclaimPolicy").one_of(&["Delete", "Retain"], errors);
        root.get("volumeBindingMode").one_of(&["Immediate", "WaitForFirstConsumer"], errors);
        root.get("allowedTopologies").items().iter().for_each(|term| topology(term, errors));
    },
    validate_update: |new, old, _, errors| {
        let (new, old) = (At::root(new), At::root(old));
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if new.get(field).value != old.get(field).value {
                errors.push(new.get(field).forbidden(&format!("updates to {field} are forbidden.")));
            }
        }
        new.get("volumeBindingMode").immutable(&old.get("volumeBindingMode"), errors);
    },
    columns: &[
        NAME,
        Column::text("Provisioner", "Who makes the volumes."),
        Column::text("ReclaimPolicy", "What happens to volumes when their claims go."),
        Column::text("VolumeBindingMode", "When volumes are made."),
        Column::text("AllowVolumeExpansion", "Whether volumes may grow."),
        AGE,
    ],
    cells: |v, now| {
        let default =
            ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
                .iter()
                .any(|a| v.text(&["metadata", "annotations", a]) == "true");
        let name = if default { format!("{} (default)", v.name()) } else { v.name().to_owned() };
        vec![
            name.into(),
            v.text(&["provisioner"]).into(),
            text_or(v, &["reclaimPolicy"], "Delete"),
            text_or(v, &["volumeBindingMode"], "Immediate"),
            v.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false).into(),
            columns::age(v, now),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const CSI_DRIVER: Hooks = Hooks {
    default: |v| {
        const TABLE: defaults::Table = &[
            ("spec.attachRequired", Default::Bool(true)),
            ("spec.podInfoOnMount", Default::Bool(false)),
            ("spec.storageCapacity", Default::Bool(false)),
            ("spec.fsGroupPolicy", Default::Str("ReadWriteOnceWithFSType")),
            ("spec.requiresRepublish", Default::Bool(false)),
            ("spec.seLinuxMount", Default::Bool(false)),
        ];
        defaults::apply(TABLE, v);
        if list(v, &["spec", "volumeLifecycleModes"]).is_empty() && v.get("spec").is_some_and(Value::is_object) {
            v["spec"]["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    },
    name: names::is_dns1123_subdomain,
    columns: &[
        NAME,
        Column::new("AttachRequired", "boolean", "", "Whether volumes must be attached first.", 0),
        Column::new("PodInfoOnMount", "boolean", "", "Whether the driver wants to know the pod.", 0),
        Column::new("StorageCapacity", "boolean", "", "Whether the driver publishes its capacity.", 0),
        Column::text("TokenRequests", "Audiences of the tokens the driver wants."),
        Column::new("RequiresRepublish", "boolean", "", "Whether volumes are published again and again.", 0),
        Column::text("Modes", "Sorts of volumes the driver serves."),
        AGE,
    ],
    cells: |v, now| {
        let flag = |field: &str, otherwise: bool| {
            Value::from(v.get("spec").and_then(|s| s.get(field)).and_then(Value::as_bool).unwrap_or(otherwise))
        };
        let tokens: Vec<&str> = list(v, &["spec", "tokenRequests"]).iter().map(|t| t.text(&["audience"])).collect();
        let modes: Vec<&str> = list(v, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        vec![
            columns::name(v),
            flag("attachRequired", true),
            flag("podInfoOnMount", false),
            flag("storageCapacity", false),
            if tokens.is_empty() { UNSET.to_owned() } else { tokens.join(",") }.into(),
            flag("requiresRepublish", false),
            if modes.is_empty() { NONE.to_owned() } else { modes.join(",") }.into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CSI_NODE: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let mut seen = BTreeSet::new();
        for driver in At::root(v).get("spec").get("drivers").items() {
            let (name, id, count) = (driver.get("name"), driver.get("nodeID"), driver.get("allocatable").get("count"));
            driver_name(&name, errors);
            if id.is_empty() {
                errors.push(id.required(""));
            } else if id.text().len() > NODE_ID_MAX {
                errors.push(FieldError::too_long(&id.path, NODE_ID_MAX));
            }
            count.non_negative(errors);
            if !seen.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
    },
    columns: &[NAME, Column::number("Drivers", "Drivers on the node."), AGE],
    cells: |v, now| vec![columns::name(v), list(v, &["spec", "drivers"]).len().into(), columns::age(v, now)],
    ..Hooks::NONE
};

/// The name of a driver of volumes.
fn driver_name(at: &At<'_>, errors: &mut Errors) {
    at.must_be_set(errors);
    if at.text().len() > DRIVER_MAX {
        errors.push(FieldError::too_long(&at.path, DRIVER_MAX));
    }
    let messages = names::is_dns1123_subdomain(&at.text().to_lowercase());
    errors.extend(messages.into_iter().map(|m| FieldError::invalid(&at.path, at.text(), m)));
}

fn topology(term: &At<'_>, errors: &mut Errors) {
    let mut keys = BTreeSet::new();
    for requirement in term.get("matchLabelExpressions").items() {
        let (key, values) = (requirement.get("key"), requirement.get("values"));
        values.must_be_set(errors);
        let mut seen = BTreeSet::new();
        for value in values.items() {
            if !seen.insert(value.text()) {
                errors.push(value.duplicate());
            }
        }
        key.messages(names::is_qualified_name(key.text()), errors);
        if !keys.insert(key.text()) {
            errors.push(key.duplicate());
        }
    }
}

pub(crate) const CSI_CAPACITY: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    columns: &[
        NAME,
        Column::text("StorageClassName", "Class the capacity is for."),
        Column::text("Capacity", "Room that is left."),
    ],
    cells: |v, _| vec![columns::name(v), v.text(&["storageClassName"]).into(), text_or(v, &["capacity"], UNSET)],
    ..Hooks::NONE
};

pub(crate) const ATTACHMENT: Hooks = Hooks {
    status: &[("status", Default::Map), ("status.attached", Default::Bool(false))],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        let (attacher, source, node) = (spec.get("attacher"), spec.get("source"), spec.get("nodeName"));
        attacher.must_be_set(errors);
        let volume = source.get("persistentVolumeName");
        const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (volume.is_set(), source.get("inlineVolumeSpec").is_set()) {
            (false, false) => errors.push(source.required(ONE)),
            (true, true) => errors.push(source.forbidden(ONE)),
            (true, false) if volume.is_empty() => {
                errors.push(volume.required("must specify non empty persistentVolumeName"));
            }
            _ => {}
        }
        node.messages(names::is_dns1123_subdomain(node.text()), errors);
        driver_name(&attacher, errors);
    },
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
        }
    },
    columns: &[
        NAME,
        Column::new("Attacher", "string", "name", "Driver that attaches.", 0),
        Column::text("PV", "Volume that is attached."),
        Column::text("Node", "Node it is attached to."),
        Column::new("Attached", "boolean", "", "Whether it is attached.", 0),
        AGE,
    ],
    cells: |v, now| {
        let attached = v.get("status").and_then(|s| s.get("attached")).and_then(Value::as_bool).unwrap_or(false);
        vec![
            columns::name(v),
            v.text(&["spec", "attacher"]).into(),
            v.text(&["spec", "source", "persistentVolumeName"]).into(),
            v.text(&["spec", "nodeName"]).into(),
            attached.into(),
            columns::age(v, now),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const ATTRIBUTES_CLASS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| At::root(v).get("driverName").must_be_set(errors),
    validate_update: |new, old, _, errors| {
        for field in ["driverName", "parameters"] {
            At::root(new).get(field).immutable(&At::root(old).get(field), errors);
        }
    },
    columns: &[NAME, Column::text("DriverName", "Driver of the volumes."), AGE],
    cells: |v, now| vec![columns::name(v), v.text(&["driverName"]).into(), columns::age(v, now)],
    ..Hooks::NONE
};
