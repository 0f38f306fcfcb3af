//! PersistentVolume and PersistentVolumeClaim.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, UNSET, list, text_or};
use crate::defaults::{self, Default, Table};
use crate::kinds::pod::spec::{host_path, label_selector, node_selector};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// The annotation by which claims named their class before the field was there.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Fields of a volume that do not say what backs it.
const NOT_A_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(crate) const VOLUME: Hooks = Hooks {
    default: |v| {
        const TABLE: Table = &[
            ("spec.persistentVolumeReclaimPolicy", Default::Str("Retain")),
            ("spec.volumeMode", Default::Str("Filesystem")),
            ("spec.hostPath.type", Default::Str("")),
            ("spec.iscsi.iscsiInterface", Default::Str("default")),
        ];
        defaults::apply(TABLE, v);
    },
    status: &[("status", Default::Map), ("status.phase", Default::Str("Pending"))],
    name: names::is_dns1123_subdomain,
    validate: validate_volume,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            update_volume(&At::root(new).get("spec"), &At::root(old).get("spec"), errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Capacity", "Size of the volume."),
        Column::text("Access Modes", "How the volume may be mounted."),
        Column::text("Reclaim Policy", "What happens to the volume when its claim goes."),
        Column::text("Status", "Phase of the volume."),
        Column::text("Claim", "Claim that has the volume."),
        Column::text("StorageClass", "Class of the volume."),
        Column::text("VolumeAttributesClass", "Attributes class of the volume."),
        Column::text("Reason", "Why the volume is in its phase."),
        AGE,
        Column::wide("VolumeMode", "Filesystem or Block."),
    ],
    cells: |v, now| {
        let claim = match v.text(&["spec", "claimRef", "name"]) {
            "" => String::new(),
            name => format!("{}/{name}", v.text(&["spec", "claimRef", "namespace"])),
        };
        vec![
            columns::name(v),
            text_or(v, &["spec", "capacity", "storage"], "0"),
            access_modes(list(v, &["spec", "accessModes"])).into(),
            v.text(&["spec", "persistentVolumeReclaimPolicy"]).into(),
            phase(v).into(),
            claim.into(),
            class(v).into(),
            text_or(v, &["spec", "volumeAttributesClassName"], UNSET),
            v.text(&["status", "reason"]).into(),
            columns::age(v, now),
            text_or(v, &["spec", "volumeMode"], UNSET),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const CLAIM: Hooks = Hooks {
    default: |v| {
        const TABLE: Table = &[("spec.volumeMode", Default::Str("Filesystem")), ("spec.resources", Default::Map)];
        defaults::apply(TABLE, v);
    },
    status: &[("status", Default::Map), ("status.phase", Default::Str("Pending"))],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| claim_spec(&At::root(v).get("spec"), errors),
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            update_claim(new, old, errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Status", "Phase of the claim."),
        Column::text("Volume", "Volume the claim has."),
        Column::text("Capacity", "Size of the volume."),
        Column::text("Access Modes", "How the volume may be mounted."),
        Column::text("StorageClass", "Class asked for."),
        Column::text("VolumeAttributesClass", "Attributes class asked for."),
        AGE,
        Column::wide("VolumeMode", "Filesystem or Block."),
    ],
    cells: |v, now| {
        let bound = !v.text(&["spec", "volumeName"]).is_empty();
        let modes = if bound { access_modes(list(v, &["status", "accessModes"])) } else { String::new() };
        vec![
            columns::name(v),
            phase(v).into(),
            v.text(&["spec", "volumeName"]).into(),
            if bound { text_or(v, &["status", "capacity", "storage"], "0") } else { "".into() },
            modes.into(),
            class(v).into(),
            text_or(v, &["spec", "volumeAttributesClassName"], UNSET),
            columns::age(v, now),
            text_or(v, &["spec", "volumeMode"], UNSET),
        ]
    },
    ..Hooks::NONE
};

fn phase(v: &Value) -> &str {
    if v.is_deleting() { "Terminating" } else { v.text(&["status", "phase"]) }
}

fn class(v: &Value) -> &str {
    // The annotation is older than the field and wins where it is set.
    match v.text(&["metadata", "annotations", OLD_CLASS]) {
        "" => v.text(&["spec", "storageClassName"]),
        class => class,
    }
}

fn access_modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let named = short.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, s)| *s);
    named.collect::<Vec<_>>().join(",")
}

fn modes(spec: &At<'_>, detail: &str, errors: &mut Errors) {
    let at = spec.get("accessModes");
    if at.is_empty() {
        errors.push(at.required(detail));
    }
    for mode in at.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            errors.push(FieldError::not_supported(&at.path, mode.text(), ACCESS_MODES));
        }
    }
    if at.items().len() > 1 && at.items().iter().any(|m| m.text() == "ReadWriteOncePod") {
        errors.push(at.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
    spec.get("volumeMode").one_of(VOLUME_MODES, errors);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.messages(names::is_dns1123_subdomain(class.text()), errors);
    }
}

fn positive(at: &At<'_>, errors: &mut Errors) {
    if let Some(quantity) = at.quantity()
        && (quantity.is_negative() || quantity.is_zero())
    {
        errors.push(FieldError::invalid(&at.path, quantity.to_string(), "must be greater than zero"));
    }
}

/// Rules of a claim's spec, also inside the template of an ephemeral volume.
pub(crate) fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    modes(spec, "at least 1 access mode is required", errors);
    label_selector(&spec.get("selector"), errors);
    let resources = spec.get("resources");
    let size = resources.get("requests").get("storage");
    let path = resources.path.key("storage");
    if size.is_set() {
        positive(&At { value: size.value, path }, errors);
    } else {
        errors.push(FieldError::required(&path, ""));
    }
    let source = spec.get("dataSource");
    if source.is_set() {
        ["name", "kind"].iter().for_each(|f| source.get(f).must_be_set(errors));
    }
}

fn validate_volume(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    modes(&spec, "", errors);
    let capacity = spec.get("capacity");
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    if !capacity.get("storage").is_set() || capacity.entries().len() > 1 {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, amount) in capacity.entries() {
        positive(&amount, errors);
    }
    spec.get("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"], errors);
    let required = spec.get("nodeAffinity").get("required");
    if spec.get("nodeAffinity").is_set() {
        if required.is_set() {
            node_selector(&required, errors);
        } else {
            errors.push(required.required("must specify required node constraints"));
        }
    }
    let mut sources = 0;
    for (field, value) in spec.value.as_object().into_iter().flatten() {
        if NOT_A_SOURCE.contains(&field.as_str()) || value.is_null() {
            continue;
        }
        sources += 1;
        let at = spec.get(field);
        if sources > 1 {
            errors.push(at.forbidden("may not specify more than 1 volume type"));
        } else if field == "hostPath" {
            host_path(&at, errors);
        } else if field == "local" {
            at.get("path").must_be_set(errors);
            if !required.is_set() {
                errors.push(spec.get("nodeAffinity").required("Local volume requires node affinity"));
            }
        }
    }
    if sources == 0 {
        errors.push(spec.required("must specify a volume type"));
    }
}

fn update_volume(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let source = |at: &At<'_>| {
        let mut v = at.value.clone();
        if let Some(map) = v.as_object_mut() {
            map.retain(|k, _| !NOT_A_SOURCE.contains(&k.as_str()));
        }
        v
    };
    if source(new) != source(old) {
        let path = new.path.child("persistentvolumesource");
        errors.push(FieldError::forbidden(&path, "spec.persistentvolumesource is immutable after creation\n"));
    }
    new.get("volumeMode").immutable(&old.get("volumeMode"), errors);
    if old.get("nodeAffinity").is_set() {
        new.get("nodeAffinity").immutable(&old.get("nodeAffinity"), errors);
    }
}

fn update_claim(new: &Value, old: &Value, errors: &mut Errors) {
    let (at, before) = (At::root(new).get("spec"), At::root(old).get("spec"));
    let bound = old.text(&["status", "phase"]) == "Bound";
    let fixed = |spec: &At<'_>| {
        let mut v = spec.value.clone();
        if let Some(map) = v.as_object_mut() {
            map.remove("volumeAttributesClassName");
            // The binder writes the volume's name once.
            if before.get("volumeName").is_empty() {
                map.remove("volumeName");
            }
            // As are claims made before there was a default class: they get it once, unless they are bound.
            let annotated = old.pointer("/metadata/annotations").is_some_and(|a| a.get(OLD_CLASS).is_some());
            if !before.get("storageClassName").is_set() && before.get("volumeName").is_empty() && !annotated {
                map.remove("storageClassName");
            }
            if bound {
                map.remove("resources");
            }
        }
        v
    };
    if fixed(&at) != fixed(&before) {
        errors.push(at.forbidden(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n",
        ));
    }
    let size = at.get("resources").get("requests").get("storage");
    let old_size = before.get("resources").get("requests").get("storage");
    if let (Some(now), Some(was)) = (size.quantity(), old_size.quantity())
        && now < was
    {
        errors.push(size.forbidden("field can not be less than status.capacity"));
    }
    at.get("volumeMode").immutable(&before.get("volumeMode"), errors);
}
