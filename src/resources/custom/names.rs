//! The status of a definition: which names it may have, whether its kind is served, and that it is going.
//!
//! Two definitions of one group cannot have a name in common; who had it first keeps it, and built-in kinds always did.

use super::schema::strings;
use crate::resource::Resource;
use mini_api::Meta;
use mini_api::meta::{child_mut, object_mut};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const APPROVED: &str = "api-approved.kubernetes.io";

/// The names that definitions of one group have: those of resources and those of kinds.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Adds the names of a kind that is served without a definition.
    pub fn add_row(&mut self, row: &Resource) {
        self.resources.extend([row.plural.clone(), row.singular.clone()]);
        self.resources.extend(row.short_names.iter().cloned());
        self.kinds.extend([row.kind.clone(), row.list_kind()]);
    }

    /// Adds the accepted names of a definition.
    pub fn add(&mut self, definition: &Value) {
        let Some(names) = definition.get("status").and_then(|s| s.get("acceptedNames")) else { return };
        let name = |field: &str| names.text(&[field]).to_owned();
        self.resources.extend([name("plural"), name("singular")]);
        self.resources.extend(strings(names.get("shortNames")));
        self.kinds.extend([name("kind"), name("listKind")]);
    }
}

/// Brings the status of `definition` up to date: accepted names and conditions, at the time `now`.
pub fn settle(definition: &mut Value, taken: &Taken, now: &str) {
    let asked = definition.get("spec").and_then(|s| s.get("names")).cloned().unwrap_or_default();
    let had = definition.get("status").and_then(|s| s.get("acceptedNames")).cloned().unwrap_or_default();
    let mut names = had.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    for (field, of, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("shortNames", &taken.resources, "ShortNamesConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let list = |names: &Value| match names.get(field) {
            Some(Value::String(name)) => vec![name.clone()],
            many => strings(many),
        };
        let own = list(&had);
        let in_use: Vec<String> = list(&asked)
            .into_iter()
            .filter(|name| !own.contains(name) && of.contains(name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        match in_use.as_slice() {
            [] => set(&mut names, field, asked.get(field)),
            [one] => conflict = Some((reason, one.clone())),
            many => conflict = Some((reason, format!("[{}]", many.join(", ")))),
        }
    }
    set(&mut names, "categories", asked.get("categories"));
    let accepted = conflict.is_none();
    let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_owned()));
    child_mut(object_mut(definition), "status").insert("acceptedNames".to_owned(), names.into());
    set_condition(definition, "NamesAccepted", accepted, reason, &message, now);
    if accepted {
        let message = "the initial names have been accepted";
        set_condition(definition, "Established", true, "InitialNamesAccepted", message, now);
    } else if !is_true(definition, "Established") {
        set_condition(definition, "Established", false, "NotAccepted", "not all names are accepted", now);
    }
    approval(definition, now);
}

/// Says of a definition in a group of the Kubernetes project who approved it.
fn approval(definition: &mut Value, now: &str) {
    let group = definition.text(&["spec", "group"]);
    if !is_protected(group) {
        return;
    }
    let annotation = definition.text(&["metadata", "annotations", APPROVED]).to_owned();
    let kind = "KubernetesAPIApprovalPolicyConformant";
    match approval_of(&annotation) {
        Approval::Approved => {
            let message = format!("approved in {annotation}");
            set_condition(definition, kind, true, "ApprovedAnnotation", &message, now);
        }
        Approval::Bypassed => {
            let message = format!("not approved: {annotation:?}");
            set_condition(definition, kind, false, "UnapprovedAnnotation", &message, now);
        }
        Approval::Missing | Approval::Invalid => {}
    }
}

/// Whether a group belongs to the Kubernetes project.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// What the annotation of a definition in a protected group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

pub(crate) fn approval_of(annotation: &str) -> Approval {
    if annotation.is_empty() {
        return Approval::Missing;
    }
    if annotation.starts_with("unapproved") {
        return Approval::Bypassed;
    }
    match annotation.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/') => Approval::Approved,
        _ => Approval::Invalid,
    }
}

/// Whether a condition holds.
#[must_use]
pub fn is_true(definition: &Value, condition: &str) -> bool {
    conditions(definition).iter().any(|c| c.text(&["type"]) == condition && c.text(&["status"]) == "True")
}

fn conditions(definition: &Value) -> &[Value] {
    let conditions = definition.get("status").and_then(|s| s.get("conditions"));
    conditions.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Sets a condition; its time is that of its last change.
pub fn set_condition(definition: &mut Value, kind: &str, holds: bool, reason: &str, message: &str, now: &str) {
    let status = if holds { "True" } else { "False" };
    let mut all = conditions(definition).to_vec();
    let old = all.iter_mut().find(|c| c.text(&["type"]) == kind);
    let since = old.as_ref().filter(|c| c.text(&["status"]) == status).map(|c| c.text(&["lastTransitionTime"]));
    let since = since.filter(|since| !since.is_empty()).unwrap_or(now).to_owned();
    let new =
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    match old {
        Some(old) => *old = new,
        None => all.push(new),
    }
    child_mut(object_mut(definition), "status").insert("conditions".to_owned(), all.into());
}

fn set(names: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    crate::resource::set_or_remove(names, field, value.cloned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {"group": "a.b", "names": {"plural": plural,
            "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}}})
    }

    #[test]
    fn the_second_of_two_definitions_does_not_get_the_name() {
        let (mut first, mut second) = (definition("foos", "Foo", &["f"]), definition("bars", "Bar", &["f", "b"]));
        let mut taken = Taken::default();
        settle(&mut first, &taken, "t");
        assert!(is_true(&first, "NamesAccepted") && is_true(&first, "Established"));
        taken.add(&first);
        settle(&mut second, &taken, "t");
        assert!(!is_true(&second, "NamesAccepted") && !is_true(&second, "Established"));
        let names = &second["status"]["acceptedNames"];
        assert_eq!((&names["plural"], names.get("shortNames")), (&json!("bars"), None));
        let condition = &second["status"]["conditions"][0];
        assert_eq!(condition["reason"], "ShortNamesConflict");
        assert_eq!(condition["message"], "\"f\" is already in use");
        // Settling again changes nothing, and once the name is free it is taken.
        let before = first.clone();
        settle(&mut first, &taken, "later");
        assert_eq!(first, before);
        settle(&mut second, &Taken::default(), "later");
        assert!(is_true(&second, "Established"));
        assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "later");
    }
}
