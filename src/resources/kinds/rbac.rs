//! Roles, cluster roles and their bindings.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, list};
use crate::kinds::pod::spec::label_selector;
use crate::resource::Hooks;
use jiff::Timestamp;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) const ROLE: Hooks = Hooks {
    name: names::is_path_segment,
    validate: |v, errors| rules(v, true, errors),
    columns: &[NAME, columns::CREATED_AT],
    cells: created,
    ..Hooks::NONE
};

pub(crate) const CLUSTER_ROLE: Hooks = Hooks {
    validate: |v, errors| {
        rules(v, false, errors);
        let aggregation = At::root(v).get("aggregationRule");
        let selectors = aggregation.get("clusterRoleSelectors");
        if aggregation.is_set() && selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(selectors.required(detail));
        }
        for selector in selectors.items() {
            label_selector(&selector, errors);
        }
    },
    ..ROLE
};

pub(crate) const BINDING: Hooks = Hooks {
    default,
    name: names::is_path_segment,
    validate: |v, errors| binding(v, true, errors),
    validate_update: |new, old, _, errors| {
        let (new, old) = (At::root(new).get("roleRef"), At::root(old).get("roleRef"));
        if new.value != old.value {
            errors.push(new.invalid("cannot change roleRef"));
        }
    },
    columns: &[
        NAME,
        Column::text("Role", "Role that is bound."),
        AGE,
        Column::wide("Users", "Users it is bound to."),
        Column::wide("Groups", "Groups it is bound to."),
        Column::wide("ServiceAccounts", "Service accounts it is bound to."),
    ],
    cells: |v, now| {
        let role = format!("{}/{}", v.text(&["roleRef", "kind"]), v.text(&["roleRef", "name"]));
        let subjects = |kind: &str| {
            list(v, &["subjects"])
                .iter()
                .filter(|s| s.text(&["kind"]) == kind)
                .map(|s| match s.text(&["namespace"]) {
                    "" => s.text(&["name"]).to_owned(),
                    namespace => format!("{namespace}/{}", s.text(&["name"])),
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![
            columns::name(v),
            role.into(),
            columns::age(v, now),
            subjects("User").into(),
            subjects("Group").into(),
            subjects("ServiceAccount").into(),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const CLUSTER_BINDING: Hooks = Hooks { validate: |v, errors| binding(v, false, errors), ..BINDING };

fn created(v: &Value, _: Timestamp) -> Vec<Value> {
    vec![columns::name(v), v.text(&["metadata", "creationTimestamp"]).into()]
}

fn default(v: &mut Value) {
    crate::defaults::apply(&[("roleRef.apiGroup", crate::defaults::Default::Str(GROUP))], v);
    crate::defaults::each(v, "subjects[]", &mut |subject| {
        if subject.text(&["apiGroup"]).is_empty() && matches!(subject.text(&["kind"]), "User" | "Group") {
            subject["apiGroup"] = GROUP.into();
        }
    });
}

fn rules(v: &Value, namespaced: bool, errors: &mut Errors) {
    for rule in At::root(v).get("rules").items() {
        let (verbs, urls) = (rule.get("verbs"), rule.get("nonResourceURLs"));
        let (groups, resources) = (rule.get("apiGroups"), rule.get("resources"));
        if verbs.is_empty() {
            errors.push(verbs.required("verbs must contain at least one value"));
        }
        if !urls.is_empty() {
            if namespaced {
                errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
            }
            if !groups.is_empty() || !resources.is_empty() || !rule.get("resourceNames").is_empty() {
                errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
            }
            continue;
        }
        if groups.is_empty() {
            errors.push(groups.required("resource rules must supply at least one api group"));
        }
        if resources.is_empty() {
            errors.push(resources.required("resource rules must supply at least one resource"));
        }
    }
}

fn binding(v: &Value, namespaced: bool, errors: &mut Errors) {
    let role = At::root(v).get("roleRef");
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let (group, kind, name) = (role.get("apiGroup"), role.get("kind"), role.get("name"));
    if group.text() != GROUP {
        errors.push(FieldError::not_supported(&group.path, group.text(), &[GROUP]));
    }
    if !kinds.contains(&kind.text()) {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), kinds));
    }
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        name.messages(names::is_path_segment(name.text()), errors);
    }
    for subject in At::root(v).get("subjects").items() {
        let (group, name, namespace) = (subject.get("apiGroup"), subject.get("name"), subject.get("namespace"));
        name.must_be_set(errors);
        match subject.get("kind").text() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    name.messages(names::is_dns1123_subdomain(name.text()), errors);
                }
                if !group.is_empty() {
                    errors.push(group.not_supported(&[""]));
                }
                if !namespaced && namespace.is_empty() {
                    errors.push(namespace.required(""));
                }
            }
            "User" | "Group" => {
                if group.text() != GROUP {
                    errors.push(FieldError::not_supported(&group.path, group.text(), &[GROUP]));
                }
            }
            other => {
                let path = subject.get("kind").path;
                errors.push(FieldError::not_supported(&path, other, &["ServiceAccount", "User", "Group"]));
            }
        }
    }
}
