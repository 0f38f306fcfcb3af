//! What an update and an apply do to the owners of an object's fields, and what an apply does to the object.

use super::element::same;
use super::managers::{Entry, Managers, Operation};
use super::merge::merge;
use super::remove::remove;
use super::schema::ApplySchema;
use super::set::{Filter, Set, path_text};
use super::typed::{compare, field_set, validate};
use crate::meta::Meta;
use crate::status::{Reason, Status, StatusCause};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The manager whose applies take over what `kubectl apply` without `--server-side` set.
const KUBECTL: &str = "kubectl";
/// Whoever set what was there before an object's owners were kept.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Into which the oldest entries of updates are folded once there are too many.
const ANCIENT: &str = "ancient-changes";
const UPDATERS_MAX: usize = 10;
/// Where `kubectl apply` keeps what it last applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// What nobody owns.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The versions of a kind.
pub trait Versions<S> {
    /// `object` in another version, with its schema; none where that version is not served.
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, S)>;
}

/// Who changes what, and when.
pub struct Context<'a, S> {
    pub schema: S,
    /// Of the objects here.
    pub api_version: &'a str,
    pub manager: &'a str,
    pub subresource: &'a str,
    /// RFC 3339, to the second, in UTC.
    pub now: &'a str,
    /// What this request does not change, whatever it says.
    pub filter: Filter<'a>,
    pub versions: &'a dyn Versions<S>,
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// Others own fields of which it wants another value: who, each with just those fields.
    Conflicts(Vec<Entry>),
    /// It does not fit the schema.
    Invalid(String),
}

impl Failure {
    /// As a client sees it; `about` names the object in upstream's words.
    #[must_use]
    pub fn status(&self, about: &str) -> Status {
        match self {
            Self::Conflicts(conflicts) => conflict(conflicts),
            Self::Invalid(why) => {
                Status::new(Reason::Unknown, format!("failed to create typed patch object ({about}): {why}"))
            }
        }
    }
}

fn conflict(conflicts: &[Entry]) -> Status {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for entry in conflicts {
        let message = format!("conflict with {entry}");
        lines.push(format!("conflicts with {entry}:"));
        for path in entry.set.paths() {
            let field = path_text(&path);
            lines.push(format!("- {field}"));
            causes.push(StatusCause { reason: "FieldManagerConflict".to_owned(), message: message.clone(), field });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    let mut status = Status::new(Reason::Conflict, message);
    status.causes = causes;
    status
}

/// What an apply made.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    pub object: Value,
    pub managers: Managers,
}

impl<S: ApplySchema> Context<'_, S> {
    /// The owners once `new` takes the place of `live`, which is an empty map where it is created. Neither has
    /// `managedFields`.
    #[must_use]
    pub fn update(&self, live: &Value, new: &Value, managers: Managers) -> Managers {
        self.update_as(self.manager, live, new, managers)
    }

    fn update_as(&self, manager: &str, live: &Value, new: &Value, managers: Managers) -> Managers {
        let managers = self.reconciled(live, managers);
        let Ok((mut set, mut managers)) = self.settle(live, new, managers, None, true) else {
            // Nothing is in the way of an update.
            return Managers::default();
        };
        set.subtract(&STRIPPED);
        if !set.is_empty() {
            let mut entry = self.entry(manager, Operation::Update, set);
            entry.time = Some(self.now.to_owned());
            if let Some(old) = managers.take(&entry) {
                entry.set = entry.set.union(&old.set);
            }
            managers.put(entry);
        }
        cap(&mut managers);
        managers
    }

    /// Applies `config` to `live`, which is an object without fields where it is created. Neither has `managedFields`.
    ///
    /// # Errors
    /// Where `config` does not fit the schema, or is in conflict with others and not to be forced.
    pub fn apply(&self, live: &Value, config: &Value, managers: &Managers, force: bool) -> Result<Applied, Failure> {
        let errors = validate(&self.schema, config);
        match errors.as_slice() {
            [] => {}
            [one] => return Err(Failure::Invalid(one.clone())),
            many => return Err(Failure::Invalid(format!("errors:\n  {}", many.join("\n  ")))),
        }
        let mut applied = match self.attempt(live, config, managers, force) {
            Err(Failure::Conflicts(conflicts)) if self.manager == KUBECTL => {
                let allowed = self.last_applied(live).unwrap_or_default();
                let left = conflicts.into_iter().map(|e| Entry { set: e.set.difference(&allowed), ..e });
                let left: Vec<_> = left.filter(|entry| !entry.set.is_empty()).collect();
                if !left.is_empty() {
                    return Err(Failure::Conflicts(left));
                }
                self.attempt(live, config, managers, true)?
            }
            other => other?,
        };
        if self.manager == KUBECTL {
            keep_last_applied(&mut applied.object, config);
        }
        Ok(applied)
    }

    fn attempt(&self, live: &Value, config: &Value, managers: &Managers, force: bool) -> Result<Applied, Failure> {
        let mut managers = managers.clone();
        if managers.is_empty() {
            let empty = Value::Object(serde_json::Map::new());
            managers = self.update_as(BEFORE_FIRST_APPLY, &empty, live, managers);
        }
        let mut managers = self.reconciled(live, managers);
        let merged = merge(&self.schema, live, config);
        let mut own = self.entry(self.manager, Operation::Apply, self.filter.apply(field_set(&self.schema, config)));
        let last = managers.take(&own);
        own.time = last.as_ref().and_then(|last| last.time.clone());
        managers.put(own.clone());
        let object = self.pruned(merged, &managers, last.as_ref());
        let (_, mut managers) = self.settle(live, &object, managers, Some(&own), force)?;
        if let Some(mut own) = managers.take(&own) {
            own.set.subtract(&STRIPPED);
            if !same(live, &object) {
                own.time = Some(self.now.to_owned());
            }
            if !own.set.is_empty() {
                managers.put(own);
            }
        }
        Ok(Applied { object, managers })
    }

    fn entry(&self, manager: &str, operation: Operation, set: Set) -> Entry {
        Entry {
            manager: if manager.is_empty() { "unknown" } else { manager }.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: None,
            set,
        }
    }

    /// An object in a version, with its schema; none where that is not served any more.
    fn at<'v>(&self, object: &'v Value, api_version: &str) -> Option<(Cow<'v, Value>, S)> {
        if api_version == self.api_version
            && matches!(object.text(&["apiVersion"]), v if v.is_empty() || v == api_version)
        {
            return Some((Cow::Borrowed(object), self.schema.clone()));
        }
        self.versions.convert(object, api_version).map(|(object, schema)| (Cow::Owned(object), schema))
    }

    /// Owners as the schemas are now.
    fn reconciled(&self, live: &Value, mut managers: Managers) -> Managers {
        if managers.is_empty() {
            return managers;
        }
        let mut schemas = BTreeMap::from([(self.api_version.to_owned(), Some(self.schema.clone()))]);
        for entry in &mut managers.0 {
            let schema = schemas.entry(entry.api_version.clone());
            let schema =
                schema.or_insert_with_key(|version| self.versions.convert(live, version).map(|(_, schema)| schema));
            if let Some(schema) = schema.as_ref().filter(|schema| entry.set.is_stale(*schema)) {
                entry.set = entry.set.reconciled(schema);
            }
        }
        managers
    }

    /// Takes from all managers but `own` what the change removes or sets otherwise; a conflict if that is not forced.
    /// Answers what it sets, and who owns what then.
    fn settle(
        &self,
        live: &Value,
        new: &Value,
        managers: Managers,
        own: Option<&Entry>,
        force: bool,
    ) -> Result<(Set, Managers), Failure> {
        let difference = |schema: &S, live: &Value, new: &Value| {
            let mut compared = compare(schema, live, new).filtered(self.filter);
            let removed = std::mem::take(&mut compared.removed);
            (compared.changed(), removed)
        };
        // What changed, and what was removed, in each version in which somebody owns something.
        let mut versions = BTreeMap::from([(self.api_version.to_owned(), Some(difference(&self.schema, live, new)))]);
        let mut conflicts = Vec::new();
        let mut kept = Managers::default();
        for mut entry in managers.0 {
            if own.is_some_and(|own| own.same_manager(&entry)) {
                kept.0.push(entry);
                continue;
            }
            let here = versions.entry(entry.api_version.clone()).or_insert_with_key(|version| {
                let ((live, schema), (new, _)) = self.at(live, version).zip(self.at(new, version))?;
                Some(difference(&schema, &live, &new))
            });
            let Some((changed, removed)) = here else { continue };
            let taken = entry.set.intersection(changed);
            if !taken.is_empty() {
                entry.set.subtract(&taken);
                if !force {
                    conflicts.push(Entry { set: taken, ..entry });
                    continue;
                }
            }
            entry.set.subtract(removed);
            if !entry.set.is_empty() {
                kept.0.push(entry);
            }
        }
        if conflicts.is_empty() {
            let here = versions.remove(self.api_version).flatten();
            return Ok((here.map(|(changed, _)| changed).unwrap_or_default(), kept));
        }
        conflicts.sort_by_cached_key(Entry::to_string);
        Err(Failure::Conflicts(conflicts))
    }

    /// Without what this manager applied last time, does not apply any more, and nobody else owns.
    fn pruned(&self, merged: Value, managers: &Managers, last: Option<&Entry>) -> Value {
        let Some(last) = last.filter(|last| !last.set.is_empty()) else { return merged };
        let Some((at_last, schema)) = self.at(&merged, &last.api_version) else { return merged };
        let last_set = last.set.with_named(Some(&schema));
        let pruned = remove(&schema, &at_last, &last_set);
        let pruned = self.with_owned(&at_last, pruned, managers);
        let Some((pruned, _)) = self.at(&pruned, &last.api_version) else { return merged };
        // What was never this manager's stays.
        let members = |value: &Value| field_set(&schema, value).with_named(Some(&schema));
        let gone = members(&at_last).difference(&members(&pruned)).intersection(&last_set);
        let pruned = remove(&schema, &at_last, &gone);
        let kept = self.at(&pruned, self.api_version).map(|(pruned, _)| pruned.into_owned());
        kept.unwrap_or(merged)
    }

    /// `pruned` with those fields of `merged` that somebody owns, in one of the versions of the owners.
    fn with_owned(&self, merged: &Value, pruned: Value, managers: &Managers) -> Value {
        let version = merged.text(&["apiVersion"]);
        let mut versions: Vec<&str> = managers.0.iter().map(|e| e.api_version.as_str()).collect();
        // That of the objects first: what is owned in it may be what a conversion needs.
        versions.sort_by_key(|v| (*v != version, *v));
        versions.dedup();
        let mut pruned = pruned;
        for owned_in in versions {
            let both = self.at(merged, owned_in).zip(self.at(&pruned, owned_in));
            let Some(((merged, schema), (cut, _))) = both else { continue };
            let owned = managers.0.iter().filter(|e| e.api_version == owned_in).map(|e| &e.set);
            let owned = Set::union_of(&owned.collect::<Vec<_>>()).with_named(Some(&schema));
            let members = |value: &Value| field_set(&schema, value).with_named(Some(&schema));
            let gone = members(&merged).difference(&members(&cut).union(&owned));
            pruned = remove(&schema, &merged, &gone);
        }
        pruned
    }

    /// What `kubectl apply` set on the client's side and nobody has changed since.
    fn last_applied(&self, live: &Value) -> Option<Set> {
        let text = live.text(&["metadata", "annotations", LAST_APPLIED]);
        let config: Value = serde_json::from_str(text).ok().filter(Value::is_object)?;
        if config.text(&["apiVersion"]) != self.api_version || !validate(&self.schema, &config).is_empty() {
            return None;
        }
        let compared = compare(&self.schema, &config, live);
        let set = field_set(&self.schema, &config);
        Some(set.difference(&compared.modified).difference(&compared.added).difference(&compared.removed))
    }
}

/// Keeps the annotation of `kubectl apply` on a par with what was applied, if it is there.
fn keep_last_applied(object: &mut Value, config: &Value) {
    if object.text(&["metadata", "annotations", LAST_APPLIED]).is_empty() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.insert(LAST_APPLIED.to_owned(), format!("{config}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().unwrap_or_default().len()).sum();
    if size > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Folds the oldest entries of updates into one for each version until there are few enough.
fn cap(managers: &mut Managers) {
    let mut count = managers.0.iter().filter(|e| e.operation == Operation::Update).count();
    if count <= UPDATERS_MAX {
        return;
    }
    let entries = std::mem::take(&mut managers.0).into_iter();
    let (mut updates, kept): (Vec<Entry>, Vec<Entry>) = entries.partition(|e| e.operation == Operation::Update);
    managers.0 = kept;
    updates.sort_by(|a, b| a.order().cmp(&b.order()));
    let mut folds: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for entry in updates {
        if count <= UPDATERS_MAX {
            managers.0.push(entry);
            continue;
        }
        // The first of a version stays as it is until there is a second to fold it with.
        let fold = folds.entry(entry.api_version.clone()).or_default();
        count -= usize::from(!fold.is_empty());
        fold.push(entry);
    }
    for mut fold in folds.into_values() {
        let Some(last) = fold.pop() else { continue };
        if fold.is_empty() {
            managers.0.push(last);
            continue;
        }
        let bucket = Entry { manager: ANCIENT.to_owned(), subresource: String::new(), ..last };
        let younger = managers.take(&bucket);
        let time = younger.as_ref().map_or_else(|| bucket.time.clone(), |younger| younger.time.clone());
        let sets: Vec<&Set> = fold.iter().chain([&bucket]).chain(&younger).map(|e| &e.set).collect();
        let set = Set::union_of(&sets);
        managers.0.push(Entry { time, set, ..bucket });
    }
}
