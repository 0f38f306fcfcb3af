//! StorageClass, VolumeAttributesClass, and what CSI drivers tell about themselves.

use crate::check::At;
use crate::columns::{self, AGE, Column, NAME, NONE, UNSET, list, text_or};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{Meta, names};
use serde_json::{Value, json};

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
    columns: &[NAME, Column::number("Drivers", "Drivers on the node."), AGE],
    cells: |v, now| vec![columns::name(v), list(v, &["spec", "drivers"]).len().into(), columns::age(v, now)],
    ..Hooks::NONE
};

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
        ["attacher", "nodeName"].iter().for_each(|f| spec.get(f).must_be_set(errors));
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
