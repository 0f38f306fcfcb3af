//! Options of requests: dry run, field validation, deletion, selectors.

use crate::managed_fields::MANAGER_MAX;
use crate::negotiate::{self, Media};
use crate::verbs::APPLY;
use crate::{Call, object};
use mini_api::apply::managers::is_printable;
use mini_api::selector::{FieldSelector, LabelSelector};
use mini_api::{FieldError, FieldPath, Meta, Reason, Status, Value};
use mini_resources::Resource;
use mini_store::Entry;
use std::sync::Arc;

/// What to do about fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) fields: FieldValidation,
    /// Of an apply: takes from others what it is in conflict with them about.
    pub(crate) force: bool,
}

impl WriteOptions {
    /// Reads the query; `kind` is upstream's, for the message.
    pub(crate) fn parse(call: &Call, kind: &str) -> Result<Self, Status> {
        let dry_run = call.query.all("dryRun").filter(|v| !v.is_empty()).collect::<Vec<_>>();
        let mut errors = Vec::new();
        let force = call.query.get("force");
        let (path, manager) = (FieldPath::new("fieldManager"), call.query.text("fieldManager"));
        if kind == "PatchOptions" {
            if negotiate::content_type(&call.headers) == APPLY {
                if manager.is_empty() {
                    errors.push(FieldError::required(&path, "is required for apply patch"));
                }
            } else if force.is_some() {
                let path = FieldPath::new("force");
                errors.push(FieldError::forbidden(&path, "may not be specified for non-apply patch"));
            }
        }
        if manager.len() > MANAGER_MAX {
            errors.push(FieldError::too_long(&path, MANAGER_MAX));
        }
        if !manager.chars().all(is_printable) {
            errors.push(FieldError::invalid(&path, manager, "should only contain printable characters"));
        }
        dry_run_errors(&dry_run, &mut errors);
        let fields = match call.query.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let known = ["Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported(&FieldPath::new("fieldValidation"), other, &known));
                FieldValidation::Warn
            }
        };
        if errors.is_empty() {
            Ok(Self { dry_run: !dry_run.is_empty(), fields, force: call.query.flag("force") })
        } else {
            Err(Status::invalid("meta.k8s.io", kind, "", &errors))
        }
    }
}

fn dry_run_errors(values: &[&str], errors: &mut Vec<FieldError>) {
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported(&FieldPath::new("dryRun"), serde_json::json!(values), &["All"]));
    }
}

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `meta/v1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// From the body, or where it is empty from the query.
    pub(crate) fn parse(call: &Call, body: &[u8]) -> Result<Self, Status> {
        if body.is_empty() {
            return Self::from_query(call);
        }
        let media = negotiate::media(&call.headers).unwrap_or(Media::Json);
        Self::from_value(&negotiate::parse(media, body)?)
    }

    fn from_query(call: &Call) -> Result<Self, Status> {
        let mut value = serde_json::json!({});
        if let Some(grace) = call.query.number("gracePeriodSeconds")? {
            value["gracePeriodSeconds"] = grace.into();
        }
        if let Some(policy) = call.query.get("propagationPolicy") {
            value["propagationPolicy"] = policy.into();
        }
        if call.query.get("orphanDependents").is_some() {
            value["orphanDependents"] = call.query.flag("orphanDependents").into();
        }
        let dry_run = call.query.all("dryRun").filter(|v| !v.is_empty()).map(Value::from).collect::<Vec<_>>();
        value["dryRun"] = dry_run.into();
        Self::from_value(&value)
    }

    /// From the object `DeleteOptions`, whichever group it names: old clients send their own.
    pub(crate) fn from_value(value: &Value) -> Result<Self, Status> {
        if !value.is_object() {
            return Err(Status::bad_request("the body is no DeleteOptions object"));
        }
        if !matches!(value.text(&["kind"]), "" | "DeleteOptions") {
            let kind = value.text(&["kind"]);
            return Err(Status::bad_request(format!("the body is a {kind}: expected DeleteOptions")));
        }
        let mut errors = Vec::new();
        let dry_run: Vec<&str> =
            value.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        dry_run_errors(&dry_run, &mut errors);
        let path = FieldPath::new("propagationPolicy");
        let orphan_dependents = value.get("orphanDependents").and_then(Value::as_bool);
        let propagation = match value.text(&["propagationPolicy"]) {
            "" => None,
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            other => {
                errors.push(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        if let (Some(_), Some(_)) = (orphan_dependents, propagation) {
            let policy = value.text(&["propagationPolicy"]);
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy, why));
        }
        // As upstream, where less than nothing is a second.
        let grace = value.get("gracePeriodSeconds").and_then(Value::as_i64).map(|n| if n < 0 { 1 } else { n });
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let precondition =
            |name| value.get("preconditions").and_then(|p| p.get(name)).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            grace,
            propagation,
            orphan_dependents,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        })
    }
}

/// Which objects a list, watch or deletecollection is about.
pub(crate) struct Filter {
    resource: Arc<Resource>,
    /// The name in the path, as the old form of a watch has it: what was authorized is all that is shown.
    name: Option<String>,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
}

impl Filter {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 if one is malformed or names a field that cannot be selected by.
    pub(crate) fn parse(call: &Call) -> Result<Self, Status> {
        let labels = match call.query.text("labelSelector") {
            "" => None,
            text => Some(LabelSelector::parse(text).map_err(Status::bad_request)?),
        };
        let fields = match call.query.text("fieldSelector") {
            "" => None,
            text => Some(FieldSelector::parse(text).map_err(Status::bad_request)?),
        };
        for term in fields.iter().flat_map(|f| &f.terms) {
            if call.resource.field(&Value::Null, &term.path).is_none() {
                return Err(Status::bad_request(format!("field label not supported: {}", term.path)));
            }
        }
        Ok(Self {
            resource: call.resource.clone(),
            name: Some(call.info.name.clone()).filter(|name| !name.is_empty()),
            labels: labels.filter(|l| !l.is_everything()),
            fields: fields.filter(|f| !f.is_empty()),
        })
    }

    /// True if nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        self.name.is_none() && self.labels.is_none() && self.fields.is_none()
    }

    /// The one name that can match, if the path or the fields pin it.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref().or_else(|| self.fields.as_ref()?.exact("metadata.name"))
    }

    /// Whether a stored object is selected. It is read only where its key does not tell.
    pub(crate) fn selects(&self, entry: &Entry) -> Result<bool, Status> {
        match self.matches_key(&entry.key) {
            Some(matches) => Ok(matches),
            None => Ok(self.matches(&object::read(&self.resource, entry)?)),
        }
    }

    fn matches_key(&self, key: &str) -> Option<bool> {
        let (above, name) = key.rsplit_once('/')?;
        let namespace = || above.rsplit_once('/').map_or("", |(_, namespace)| namespace);
        if self.name.as_deref().is_some_and(|wanted| wanted != name) {
            return Some(false);
        }
        let mut whole = self.labels.is_none();
        for term in self.fields.iter().flat_map(|f| &f.terms) {
            let value = match term.path.as_str() {
                "metadata.name" => name,
                "metadata.namespace" => namespace(),
                _ => {
                    whole = false;
                    continue;
                }
            };
            if !term.matches(value) {
                return Some(false);
            }
        }
        whole.then_some(true)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.name.as_deref().is_none_or(|name| object.name() == name)
            && self.labels.as_ref().is_none_or(|l| l.matches(object.labels()))
            && self
                .fields
                .as_ref()
                .is_none_or(|f| f.matches(|path| self.resource.field(object, path).unwrap_or_default()))
    }
}

/// Options of list and watch that are about revisions.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    /// 0: no limit.
    pub(crate) limit: usize,
    pub(crate) continue_token: Option<String>,
    /// `resourceVersion` as it was given; empty: the newest.
    pub(crate) version: String,
    /// Exactly that revision, not one that is newer.
    pub(crate) exact: bool,
    pub(crate) bookmarks: bool,
    /// A watch begins with what is there.
    pub(crate) initial_events: bool,
    /// A bookmark says where that ends.
    pub(crate) initial_end: bool,
    pub(crate) timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub(crate) fn parse(call: &Call) -> Result<Self, Status> {
        let query = &call.query;
        let version = query.text("resourceVersion");
        let continue_token = query.get("continue").filter(|t| !t.is_empty()).map(str::to_owned);
        let rule = query.text("resourceVersionMatch");
        let send = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let limit = query.number("limit")?.unwrap_or(0);
        let timeout = query.number("timeoutSeconds")?;
        let from_anywhere = matches!(version, "" | "0");
        // The old form of a watch, by its path alone, has the options of a list.
        let watch = query.flag("watch");
        let errors = if watch {
            watch_errors(rule, send, continue_token.is_some())
        } else {
            list_errors(rule, send, continue_token.is_some(), version)
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        let bookmarks = query.flag("allowWatchBookmarks");
        // Who begins anywhere and says nothing else is sent what is there, as ever, and since 1.34 where it ends.
        let initial_events = send.unwrap_or(from_anywhere);
        // Upstream's cache, which answers for any revision, knows no limit.
        let limit = if version == "0" && continue_token.is_none() { 0 } else { usize::try_from(limit).unwrap_or(0) };
        // A revision with a limit but no rule is an exact one, as upstream has always had it.
        let exact = rule == "Exact" || (rule.is_empty() && limit > 0);
        Ok(Self {
            limit,
            continue_token,
            version: version.to_owned(),
            exact: exact && !from_anywhere,
            bookmarks,
            initial_events,
            initial_end: initial_events && bookmarks && (watch || send.is_some()),
            timeout_seconds: timeout.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        })
    }
}

const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

fn list_errors(rule: &str, send: Option<bool>, goes_on: bool, version: &str) -> Vec<FieldError> {
    let path = FieldPath::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if !rule.is_empty() {
        if version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if goes_on {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(rule, EXACT | NOT_OLDER) {
            errors.push(FieldError::not_supported(&path, rule, &[EXACT, NOT_OLDER, ""]));
        }
        if rule == EXACT && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if send.is_some() {
        let path = FieldPath::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn watch_errors(rule: &str, send: Option<bool>, goes_on: bool) -> Vec<FieldError> {
    let path = FieldPath::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if send.is_some() && rule != NOT_OLDER {
        let why = format!("sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}");
        errors.push(FieldError::forbidden(&path, why));
    }
    if !rule.is_empty() {
        if send.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if rule != NOT_OLDER {
            errors.push(FieldError::not_supported(&path, rule, &[NOT_OLDER]));
        }
        if goes_on {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    errors
}

/// A resourceVersion of a request; none is 0.
///
/// # Errors
/// Upstream's words, which a list and others wrap differently.
pub(crate) fn parse_revision(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().map_err(|_| {
        let why = if digits { "value out of range" } else { "invalid syntax" };
        let value = Value::from(text);
        format!("resourceVersion: Invalid value: {value}: strconv.ParseUint: parsing {value}: {why}")
    })
}

/// What upstream answers to gets and watches from a revision that is none.
pub(crate) fn no_revision(why: String) -> Status {
    Status::new(Reason::Unknown, why)
}

/// 504 for a revision that is still to come.
pub(crate) fn too_large(requested: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
    let mut status = Status::new(Reason::Timeout, message);
    status.retry_after_seconds = Some(1);
    status.causes.push(mini_api::StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    });
    status
}
