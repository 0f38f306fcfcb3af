//! StatefulSet, DaemonSet and the ControllerRevisions both keep.

use super::deployment::{int_or_percent, is_zero, not_more_than_all};
use super::replicas::{immutable_selector, template_containers, workload_selector};
use super::template;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, int, list};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{Meta, names};
use serde_json::{Value, json};

pub(crate) const STATEFUL: Hooks = Hooks {
    default: default_stateful,
    status: &[
        ("status", Default::Map),
        ("status.replicas", Default::Int(0)),
        ("status.availableReplicas", Default::Int(0)),
    ],
    name: names::is_dns1123_subdomain,
    validate: validate_stateful,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            stateful_update(&At::root(new).get("spec"), &At::root(old).get("spec"), errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Ready", "Pods that are ready, of those asked for."),
        AGE,
        Column::wide("Containers", "Names of the containers of the template."),
        Column::wide("Images", "Images of the containers of the template."),
    ],
    cells: |v, now| {
        let (names, images) = template_containers(v);
        vec![
            columns::name(v),
            format!("{}/{}", int(v, &["status", "readyReplicas"]), int(v, &["spec", "replicas"])).into(),
            columns::age(v, now),
            names.into(),
            images.into(),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const DAEMON: Hooks = Hooks {
    default: default_daemon,
    status: &[
        ("status", Default::Map),
        ("status.currentNumberScheduled", Default::Int(0)),
        ("status.numberMisscheduled", Default::Int(0)),
        ("status.desiredNumberScheduled", Default::Int(0)),
        ("status.numberReady", Default::Int(0)),
    ],
    name: names::is_dns1123_subdomain,
    validate: validate_daemon,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            immutable_selector(new, old, errors);
        }
    },
    columns: &[
        NAME,
        Column::number("Desired", "Nodes that should run the pod."),
        Column::number("Current", "Nodes that run the pod and should."),
        Column::number("Ready", "Nodes where the pod is ready."),
        Column::number("Up-to-date", "Nodes that run the pod of the newest template."),
        Column::number("Available", "Nodes where the pod has been ready long enough."),
        Column::text("Node Selector", "Labels of the nodes that should run the pod."),
        AGE,
        Column::wide("Containers", "Names of the containers of the template."),
        Column::wide("Images", "Images of the containers of the template."),
        Column::wide("Selector", "Labels of the pods that are counted."),
    ],
    cells: |v, now| {
        let (names, images) = template_containers(v);
        let count = |field: &str| Value::from(int(v, &["status", field]));
        vec![
            columns::name(v),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            columns::labels(columns::map(v, &["spec", "template", "spec", "nodeSelector"])).into(),
            columns::age(v, now),
            names.into(),
            images.into(),
            columns::selector(v.get("spec").and_then(|s| s.get("selector"))).into(),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const REVISION: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let root = At::root(v);
        if !root.get("data").is_set() {
            errors.push(root.get("data").required("data is mandatory"));
        }
        root.get("revision").non_negative(errors);
    },
    validate_update: |new, old, _, errors| At::root(new).get("data").immutable(&At::root(old).get("data"), errors),
    columns: &[
        NAME,
        Column::text("Controller", "What the revision belongs to."),
        Column::text("Revision", "Number of the revision."),
        AGE,
    ],
    cells: |v, now| {
        let owner = list(v, &["metadata", "ownerReferences"])
            .iter()
            .find(|o| o.get("controller").and_then(Value::as_bool) == Some(true));
        let owner = owner.map_or_else(
            || NONE.to_owned(),
            |o| {
                let kind = o.text(&["kind"]).to_lowercase();
                match o.text(&["apiVersion"]).split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", o.text(&["name"])),
                    None => format!("{kind}/{}", o.text(&["name"])),
                }
            },
        );
        vec![columns::name(v), owner.into(), int(v, &["revision"]).into(), columns::age(v, now)]
    },
    ..Hooks::NONE
};

const STATEFUL_DEFAULTS: Table = &[
    ("spec.podManagementPolicy", Default::Str("OrderedReady")),
    ("spec.replicas", Default::Int(1)),
    ("spec.revisionHistoryLimit", Default::Int(10)),
    ("spec.persistentVolumeClaimRetentionPolicy", Default::Map),
    ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Default::Str("Retain")),
    ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", Default::Str("Retain")),
    ("spec.volumeClaimTemplates[].apiVersion", Default::Str("v1")),
    ("spec.volumeClaimTemplates[].kind", Default::Str("PersistentVolumeClaim")),
    ("spec.volumeClaimTemplates[].spec.volumeMode", Default::Str("Filesystem")),
    ("spec.volumeClaimTemplates[].status", Default::Map),
    ("spec.volumeClaimTemplates[].status.phase", Default::Str("Pending")),
];

const DAEMON_DEFAULTS: Table = &[
    ("spec.revisionHistoryLimit", Default::Int(10)),
    ("spec.updateStrategy", Default::Map),
    ("spec.updateStrategy.type", Default::Str("RollingUpdate")),
];

fn default_stateful(v: &mut Value) {
    if let Some(spec) = v.get_mut("spec").filter(|s| s.is_object())
        && spec.text(&["updateStrategy", "type"]).is_empty()
    {
        let rolling =
            spec.get("updateStrategy").and_then(|u| u.get("rollingUpdate")).cloned().unwrap_or_else(|| json!({}));
        spec["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
    }
    if v.text(&["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        defaults::apply(&[("spec.updateStrategy.rollingUpdate.partition", Default::Int(0))], v);
    }
    defaults::apply(STATEFUL_DEFAULTS, v);
    template::default_at("spec.template", v);
}

fn default_daemon(v: &mut Value) {
    defaults::apply(DAEMON_DEFAULTS, v);
    if v.text(&["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        const ROLLING: Table = &[
            ("spec.updateStrategy.rollingUpdate", Default::Map),
            ("spec.updateStrategy.rollingUpdate.maxUnavailable", Default::Int(1)),
            ("spec.updateStrategy.rollingUpdate.maxSurge", Default::Int(0)),
        ];
        defaults::apply(ROLLING, v);
    }
    template::default_at("spec.template", v);
}

fn validate_stateful(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "OrderedReady" | "Parallel" => {}
        "" => errors.push(policy.required("")),
        _ => errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {
            if rolling.is_set() {
                errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
            }
        }
        "RollingUpdate" => rolling.get("partition").non_negative(errors),
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.get(field).non_negative(errors);
    }
    spec.get("ordinals").get("start").non_negative(errors);
    for field in ["whenDeleted", "whenScaled"] {
        spec.get("persistentVolumeClaimRetentionPolicy").get(field).one_of(&["Delete", "Retain"], errors);
    }
    let selector = workload_selector(&spec, "statefulset", errors);
    // Claims appear in the pods as volumes; for the check of mounts they are there already.
    let mut template = spec.get("template").value.clone();
    let claims: Vec<Value> = spec
        .get("volumeClaimTemplates")
        .items()
        .iter()
        .map(|c| json!({"name": c.get("metadata").get("name").text(), "persistentVolumeClaim": {"claimName": "claim"}}))
        .collect();
    if !claims.is_empty() && template.get("spec").is_some_and(Value::is_object) {
        let mut volumes = list(&template, &["spec", "volumes"]).to_vec();
        volumes.retain(|v| !claims.iter().any(|c| c.get("name") == v.get("name")));
        volumes.extend(claims);
        template["spec"]["volumes"] = volumes.into();
    }
    let at = At { value: &template, path: spec.get("template").path };
    if let Some(selector) = selector {
        template::validate_replicated(&at, &selector, "StatefulSet", errors);
    }
}

fn stateful_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |at: &At<'_>| {
        let mut v = at.value.clone();
        if let Some(map) = v.as_object_mut() {
            map.retain(|k, _| !FREE.contains(&k.as_str()));
        }
        v
    };
    if fixed(new) != fixed(old) {
        errors.push(new.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

fn validate_daemon(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    if let Some(selector) = workload_selector(&spec, "daemonset", errors) {
        template::validate_replicated(&spec.get("template"), &selector, "DaemonSet", errors);
    }
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.get(field).non_negative(errors);
    }
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            if !rolling.is_set() {
                errors.push(rolling.required(""));
                return;
            }
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            for at in [&unavailable, &surge] {
                int_or_percent(at, errors);
                not_more_than_all(at, errors);
            }
            match (is_zero(unavailable.value), is_zero(surge.value)) {
                (true, true) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
                (false, false) if surge.is_set() => {
                    errors.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
                }
                _ => {}
            }
        }
        _ => errors.push(strategy.not_supported(&["RollingUpdate", "OnDelete"])),
    }
}
