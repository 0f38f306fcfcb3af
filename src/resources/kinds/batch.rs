//! Job and CronJob.

use super::replicas::template_containers;
use super::template;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, int, list, since, text_or};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use jiff::Timestamp;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{Meta, cron, names};
use serde_json::{Value, json};

mod job;
mod job_status;

/// A CronJob's name gets 11 characters appended for each of its Jobs.
const CRON_NAME_MAX: usize = 52;

pub(crate) const JOB: Hooks = Hooks {
    default: |v| default_job("spec", v),
    status: &[("status", Default::Map)],
    prepare_create: own_pods,
    name: names::is_dns1123_subdomain,
    validate: |v, errors| job::validate(v.name(), &At::root(v).get("spec"), true, errors),
    validate_update: |new, old, subresource, errors| match subresource {
        None => job::validate_update(new, old, errors),
        Some("status") => job_status::validate_update(new, old, errors),
        Some(_) => {}
    },
    columns: &[
        NAME,
        Column::text("Status", "What the job is doing."),
        Column::text("Completions", "Pods that succeeded, of those asked for."),
        Column::text("Duration", "How long the job took, or has taken."),
        AGE,
        Column::wide("Containers", "Names of the containers of the template."),
        Column::wide("Images", "Images of the containers of the template."),
        Column::wide("Selector", "Labels of the pods that are counted."),
    ],
    cells: job_cells,
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CRON_JOB: Hooks = Hooks {
    default: |v| {
        const TABLE: Table = &[
            ("spec.concurrencyPolicy", Default::Str("Allow")),
            ("spec.suspend", Default::Bool(false)),
            ("spec.successfulJobsHistoryLimit", Default::Int(3)),
            ("spec.failedJobsHistoryLimit", Default::Int(1)),
        ];
        defaults::apply(TABLE, v);
        template::default_at("spec.jobTemplate.spec.template", v);
    },
    status: &[("status", Default::Map)],
    name: |name| {
        let mut errors = names::is_dns1123_subdomain(name);
        if name.len() > CRON_NAME_MAX {
            errors.push(format!("must be no more than {CRON_NAME_MAX} characters"));
        }
        errors
    },
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        schedule(&spec.get("schedule"), errors);
        spec.get("concurrencyPolicy").required_one_of(&["Allow", "Forbid", "Replace"], errors);
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            spec.get(field).non_negative(errors);
        }
        let zone = spec.get("timeZone");
        match zone.text() {
            _ if !zone.is_set() => {}
            "" => errors.push(zone.invalid("timeZone must be nil or non-empty string")),
            name if name.eq_ignore_ascii_case("local") => errors.push(
                zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
            ),
            name if cron::zone(name).is_none() => errors.push(zone.invalid(format!("unknown time zone {name}"))),
            _ => {}
        }
        job::validate("", &spec.get("jobTemplate").get("spec"), false, errors);
    },
    columns: &[
        NAME,
        Column::text("Schedule", "When jobs are made, in cron's notation."),
        Column::text("Timezone", "Time zone of the schedule."),
        Column::new("Suspend", "boolean", "", "Whether no jobs are made for now.", 0),
        Column::number("Active", "Jobs that run now."),
        Column::text("Last Schedule", "Time since a job was last made."),
        AGE,
        Column::wide("Containers", "Names of the containers of the template."),
        Column::wide("Images", "Images of the containers of the template."),
        Column::wide("Selector", "Labels of the pods that are counted."),
    ],
    cells: |v, now| {
        let job = v.get("spec").and_then(|s| s.get("jobTemplate")).cloned().unwrap_or_default();
        let (names, images) = template_containers(&job);
        let last = match v.text(&["status", "lastScheduleTime"]) {
            "" => NONE.to_owned(),
            at => since(at, now),
        };
        let suspend = v.get("spec").and_then(|s| s.get("suspend")).and_then(Value::as_bool) == Some(true);
        vec![
            columns::name(v),
            v.text(&["spec", "schedule"]).into(),
            text_or(v, &["spec", "timeZone"], NONE),
            if suspend { "True" } else { "False" }.into(),
            list(v, &["status", "active"]).len().into(),
            last.into(),
            columns::age(v, now),
            names.into(),
            images.into(),
            columns::selector(job.get("spec").and_then(|s| s.get("selector"))).into(),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

fn default_job(path: &str, v: &mut Value) {
    const TABLE: Table = &[
        ("parallelism", Default::Int(1)),
        ("backoffLimit", Default::Int(6)),
        ("completionMode", Default::Str("NonIndexed")),
        ("suspend", Default::Bool(false)),
        ("manualSelector", Default::Bool(false)),
    ];
    defaults::each(v, path, &mut |spec| {
        if !spec.is_object() {
            return;
        }
        if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
            spec["completions"] = 1.into();
        }
        if spec.get("backoffLimitPerIndex").is_some() && spec.get("backoffLimit").is_none() {
            spec["backoffLimit"] = i32::MAX.into();
        }
        if spec.get("podReplacementPolicy").is_none() {
            let policy = if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
            spec["podReplacementPolicy"] = policy.into();
        }
        let rules = spec.pointer_mut("/podFailurePolicy/rules").and_then(Value::as_array_mut);
        let patterns = rules.into_iter().flatten().filter_map(|rule| rule.get_mut("onPodConditions")?.as_array_mut());
        for pattern in patterns.flatten().filter_map(Value::as_object_mut) {
            pattern.entry("status").or_insert("True".into());
        }
        defaults::apply(TABLE, spec);
        template::default_at("template", spec);
    });
    let labels = columns::map(v, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(labels) = labels
        && v.labels().is_none_or(serde_json::Map::is_empty)
    {
        v.meta_mut().insert("labels".to_owned(), labels.into());
    }
}

/// A job counts the pods that carry its own uid, unless its author chose another selector.
fn own_pods(v: &mut Value) {
    let (uid, name) = (v.uid().to_owned(), v.name().to_owned());
    let manual = v.get("spec").and_then(|s| s.get("manualSelector")).and_then(Value::as_bool) == Some(true);
    if manual || uid.is_empty() {
        return;
    }
    let spec = child_mut(object_mut(v), "spec");
    let labels = child_mut(child_mut(child_mut(spec, "template"), "metadata"), "labels");
    for prefix in ["", "batch.kubernetes.io/"] {
        labels.insert(format!("{prefix}controller-uid"), uid.clone().into());
        labels.insert(format!("{prefix}job-name"), name.clone().into());
    }
    spec.insert("selector".to_owned(), json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}

fn schedule(at: &At<'_>, errors: &mut Errors) {
    let text = at.text();
    if text.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if text.contains("TZ=") {
        errors.push(at.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
        return;
    }
    if let Err(why) = cron::Schedule::parse(text) {
        errors.push(at.invalid(why));
    }
}

fn job_cells(v: &Value, now: Timestamp) -> Vec<Value> {
    let has = |name: &str| {
        list(v, &["status", "conditions"]).iter().any(|c| c.text(&["type"]) == name && c.text(&["status"]) == "True")
    };
    let status = match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if v.is_deleting() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let succeeded = int(v, &["status", "succeeded"]);
    let parallelism = int(v, &["spec", "parallelism"]);
    let completions = match v.get("spec").and_then(|s| s.get("completions")).and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let at = |field: &str| v.text(&["status", field]).parse::<Timestamp>().ok();
    let duration = at("startTime").map_or_else(String::new, |start| {
        columns::human_duration(at("completionTime").unwrap_or(now).as_second() - start.as_second())
    });
    let (names, images) = template_containers(v);
    vec![
        columns::name(v),
        status.into(),
        completions.into(),
        duration.into(),
        columns::age(v, now),
        names.into(),
        images.into(),
        columns::selector(v.get("spec").and_then(|s| s.get("selector"))).into(),
    ]
}
