//! `PodSecurity`: what the labels of a namespace allow its pods, by upstream's pod security standards.
//!
//! Modes: `enforce` refuses pods, `warn` tells in warnings, also of the pods that a workload would make. `audit` is read
//! and checked, but not written to the audit log yet. Nobody is exempt.

mod checks;

use super::{Operation, Request};
use mini_api::{FieldError, FieldPath, Meta, Status, Value};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level changes.
const MOST_PODS: usize = 3000;
/// And how long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Subresources of pods that write nothing that counts here.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// Where workloads keep the pods they would make.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// `v1.x`.
    Minor(u32),
    Latest,
}

/// A level as it was at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    version: Version,
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
            Version::Latest => write!(f, "{level}:latest"),
        }
    }
}

/// What holds in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    warn: Standard,
}

fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn version(text: &str) -> Result<Version, &'static str> {
    if text == "latest" {
        return Ok(Version::Latest);
    }
    let number = text.strip_prefix("v1.").filter(|number| {
        number.bytes().all(|byte| byte.is_ascii_digit()) && (*number == "0" || !number.starts_with('0'))
    });
    number.and_then(|number| number.parse().ok()).map(Version::Minor).ok_or("must be \"latest\" or \"v1.x\"")
}

/// What the labels of a namespace say, and what is wrong with them. What cannot be read enforces the most, and warns of
/// nothing.
fn policy(namespace: &Value) -> (Policy, Vec<FieldError>) {
    let labels = namespace.pointer("/metadata/labels").and_then(Value::as_object);
    let label = |name: &str| labels?.get(&format!("{PREFIX}{name}")).and_then(Value::as_str);
    let mut errors = Vec::new();
    let mut mode = |name: &str, at_worst: Level| {
        let mut wrong = |label: String, text: &str, why: &str| {
            let path = FieldPath::new("metadata").child("labels").key(&format!("{PREFIX}{label}"));
            errors.push(FieldError::invalid(&path, text, why));
        };
        let read = label(name).map(|text| level(text).inspect_err(|why| wrong(name.to_owned(), text, why)));
        let at = format!("{name}-version");
        let version = label(&at).map(|text| {
            version(text).unwrap_or_else(|why| {
                wrong(at.clone(), text, why);
                Version::Latest
            })
        });
        (read, read.map(|read| read.unwrap_or(at_worst)).unwrap_or(Level::Privileged), version)
    };
    let (asked, level, version) = mode("enforce", Level::Restricted);
    let enforce = Standard { level, version: version.unwrap_or(Version::Latest) };
    mode("audit", Level::Privileged);
    let (said, level, version) = mode("warn", Level::Privileged);
    let mut warn = Standard { level, version: version.unwrap_or(Version::Latest) };
    // Who is not told otherwise is warned of what will be refused.
    if said.is_none() && asked.is_some_and(|level| level.is_ok_and(|level| level > warn.level)) {
        warn = Standard { level: enforce.level, version: version.unwrap_or(enforce.version) };
    }
    (Policy { enforce, warn }, errors)
}

pub(super) fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let (group, plural) = (request.resource.group.as_str(), request.resource.plural.as_str());
    match (group, plural) {
        ("", "namespaces") if request.subresource.is_empty() => namespace(request),
        ("", "pods") if !IGNORED.contains(&request.subresource) => pod(request),
        _ if request.subresource.is_empty() => {
            let row = TEMPLATES.iter().find(|(of, kinds, _)| (*of, *kinds) == (group, plural));
            if let Some(template) = row.and_then(|(.., pointer)| request.object.pointer(pointer)) {
                warn(request, template);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The policy of the request's namespace; `None` where it has nothing to say.
fn policy_here(request: &Request<'_>) -> Option<Policy> {
    let entry = request.server.store.snapshot().get(&format!("/registry/namespaces/{}", request.namespace))?;
    // Most namespaces have no such labels; to search is cheaper than to read.
    if !entry.bytes.windows(PREFIX.len()).any(|part| part == PREFIX.as_bytes()) {
        return None;
    }
    Some(policy(&serde_json::from_slice(&entry.bytes).ok()?).0)
}

fn pod(request: &Request<'_>) -> Result<(), Status> {
    if request.old.is_some_and(|old| !is_significant(request.object, old)) {
        return Ok(());
    }
    let Some(policy) = policy_here(request) else { return Ok(()) };
    let violations = checks::violations(policy.enforce, request.object);
    if violations.is_empty() {
        warn(request, request.object);
        return Ok(());
    }
    let name = if request.name.is_empty() { request.object.name() } else { request.name };
    let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, checks::details(&violations));
    Err(Status::forbidden("", "pods", name, &why))
}

/// Tells of what a pod, or one of this template, would violate.
fn warn(request: &Request<'_>, pod: &Value) {
    let Some(Policy { warn, .. }) = policy_here(request) else { return };
    let violations = checks::violations(warn, pod);
    if !violations.is_empty() {
        request.notices.add(format!("would violate PodSecurity \"{warn}\": {}", checks::details(&violations)));
    }
}

/// Whether a change of a pod could make it another to the standards.
fn is_significant(new: &Value, old: &Value) -> bool {
    let containers = |pod: &'_ Value, list: &str| -> Vec<(String, String)> {
        let all = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).into_iter().flatten();
        all.map(|one| (one.text(&["name"]).to_owned(), one.text(&["image"]).to_owned())).collect()
    };
    let images =
        |pod: &Value, list: &str| containers(pod, list).into_iter().map(|(_, image)| image).collect::<Vec<_>>();
    ["containers", "initContainers"].iter().any(|list| images(new, list) != images(old, list)) || {
        let before = containers(old, "ephemeralContainers");
        containers(new, "ephemeralContainers").iter().any(|container| !before.contains(container))
    }
}

fn namespace(request: &Request<'_>) -> Result<(), Status> {
    let (new, errors) = policy(request.object);
    let before = request.old.map(policy);
    if !errors.is_empty() && before.as_ref().is_none_or(|(_, old)| *old != errors) {
        return Err(Status::invalid("", "Namespace", request.object.name(), &errors));
    }
    let Some((old, _)) = before else { return Ok(()) };
    let stricter = new.enforce.version != old.enforce.version || new.enforce.level > old.enforce.level;
    if new.enforce != old.enforce && new.enforce.level != Level::Privileged && stricter {
        for warning in existing(request, new.enforce) {
            request.notices.add(warning);
        }
    }
    Ok(())
}

/// Which pods of the namespace would not be let in any more.
fn existing(request: &Request<'_>, enforce: Standard) -> Vec<String> {
    let name = request.object.name();
    let snapshot = request.server.store.snapshot();
    let prefix = format!("/registry/pods/{name}/");
    let total = snapshot.range(&prefix, None).count();
    let mut seen = HashSet::new();
    let (mut first, mut alike) = (Vec::new(), Vec::new());
    for entry in snapshot.range(&prefix, None).take(MOST_PODS) {
        let Ok(pod) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller =
            owners.into_iter().flatten().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
        // One pod of each owner first: the others are as it is.
        let new = controller.is_none_or(|owner| seen.insert(owner.text(&["uid"]).to_owned()));
        if new { first.push(pod) } else { alike.push(pod) }
    }
    let begun = Instant::now();
    let mut checked = 0;
    // By what they violate: the first name, and how many.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.iter().chain(&alike) {
        checked += 1;
        let violations = checks::violations(enforce, pod);
        if !violations.is_empty() {
            let (least, count) = found.entry(checks::reasons(&violations)).or_insert((pod.name().to_owned(), 0));
            *count += 1;
            if pod.name() < least.as_str() {
                pod.name().clone_into(least);
            }
        }
        if begun.elapsed() >= PATIENCE {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < total {
        let told = "new PodSecurity enforce level only checked against the first";
        warnings.push(format!("{told} {checked} of {total} existing pods"));
    }
    if !found.is_empty() {
        let told = format!("existing pods in namespace \"{name}\" violate the new PodSecurity enforce level");
        warnings.push(format!("{told} \"{enforce}\""));
    }
    let mut each: Vec<_> = found
        .into_iter()
        .map(|(reasons, (pod, count))| match count {
            1 => (reasons.clone(), format!("{pod}: {reasons}")),
            2 => (reasons.clone(), format!("{pod} (and 1 other pod): {reasons}")),
            _ => (reasons.clone(), format!("{pod} (and {} other pods): {reasons}", count - 1)),
        })
        .map(|(_, told)| told)
        .collect();
    each.sort();
    warnings.extend(each);
    warnings
}

#[cfg(test)]
mod tests;
