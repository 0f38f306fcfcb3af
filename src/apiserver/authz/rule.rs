//! `rbac/v1.PolicyRule`: matching, covering, and its text in messages.

use super::Attributes;
use mini_api::Value;
use serde_json::json;
use std::fmt;

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

impl Rule {
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            let items = value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// The rules at `rules` of a role.
    #[must_use]
    pub fn list(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).map_or_else(Vec::new, |a| a.iter().map(Self::from_value).collect())
    }

    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (field, items) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ] {
            if !items.is_empty() {
                value[field] = json!(items);
            }
        }
        value
    }

    #[must_use]
    pub fn everything() -> Self {
        let all = || vec!["*".to_owned()];
        Self { verbs: all(), groups: all(), resources: all(), ..Self::default() }
    }

    #[must_use]
    pub fn every_path() -> Self {
        let all = || vec!["*".to_owned()];
        Self { verbs: all(), urls: all(), ..Self::default() }
    }

    #[must_use]
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !any(&self.verbs, a.verb) {
            return false;
        }
        if !a.resource_request {
            return self.urls.iter().any(|url| url_matches(url, a.path));
        }
        any(&self.groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }

    /// The rule taken apart into rules of one verb, group, resource and name (or one verb and path) each.
    fn atoms(&self) -> Vec<Self> {
        let one = |s: &String| vec![s.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.groups {
                for resource in &self.resources {
                    let atom =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        atoms.push(atom);
                    } else {
                        atoms.extend(self.names.iter().map(|name| Self { names: one(name), ..atom.clone() }));
                    }
                }
            }
            atoms.extend(self.urls.iter().map(|url| Self { verbs: one(verb), urls: one(url), ..Self::default() }));
        }
        atoms
    }

    /// Whether everything the atom allows, this rule allows.
    fn covers_atom(&self, atom: &Self) -> bool {
        let subset = |mine: &[String], theirs: &[String]| {
            mine.iter().any(|m| m == "*") || theirs.iter().all(|t| mine.contains(t))
        };
        subset(&self.verbs, &atom.verbs)
            && subset(&self.groups, &atom.groups)
            && atom.resources.iter().all(|r| {
                self.resources.iter().any(|mine| {
                    let (resource, subresource) = r.split_once('/').unwrap_or((r, ""));
                    resource_matches(mine, resource, subresource)
                })
            })
            && (self.names.is_empty() || !atom.names.is_empty() && subset(&self.names, &atom.names))
            && atom.urls.iter().all(|url| self.urls.iter().any(|mine| url_matches(mine, url)))
    }
}

/// The parts of `wanted` that `held` does not allow: upstream's `Covers`.
#[must_use]
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !held.iter().any(|rule| rule.covers_atom(atom))).collect()
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((main, sub)) => !subresource.is_empty() && sub == subresource && (main == "*" || main == resource),
    }
}

fn url_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|p| path.starts_with(p.trim_end_matches('*')))
}

impl fmt::Display for Rule {
    /// Upstream's `CompactString`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (label, items) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ] {
            if !items.is_empty() {
                parts.push(format!("{label}:{}", quoted(items)));
            }
        }
        write!(f, "{{{}}}", parts.join(", "))
    }
}

/// A list as Go's `%q` prints it.
#[must_use]
pub fn quoted(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|i| format!("{i:?}")).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UserInfo;

    fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
        let list = |s: &str| s.split(',').map(str::to_owned).collect();
        Rule { verbs: list(verbs), groups: list(groups), resources: list(resources), ..Rule::default() }
    }

    #[test]
    fn matching() {
        let user = UserInfo::new("u", &[]);
        let ask = |verb, group, resource, subresource, name| Attributes {
            subresource,
            name,
            ..Attributes::resource(&user, verb, group, resource)
        };
        for (rule, question, want) in [
            (rule("get", "", "pods"), ask("get", "", "pods", "", "x"), true),
            (rule("get", "", "pods"), ask("get", "", "pods", "log", "x"), false),
            (rule("get", "", "pods/log"), ask("get", "", "pods", "log", "x"), true),
            (rule("get", "", "pods/log"), ask("get", "", "pods", "", "x"), false),
            (rule("get", "*", "*/scale"), ask("get", "apps", "deployments", "scale", "x"), true),
            (rule("get", "*", "*/scale"), ask("get", "apps", "deployments", "", "x"), false),
            (rule("*", "*", "*"), ask("eat", "a", "b", "c", "d"), true),
            (rule("get", "apps", "pods"), ask("get", "", "pods", "", "x"), false),
            (Rule { names: vec!["y".into()], ..rule("get", "", "pods") }, ask("get", "", "pods", "", "x"), false),
            (Rule { names: vec!["x".into()], ..rule("get", "", "pods") }, ask("get", "", "pods", "", "x"), true),
            (Rule { names: vec!["x".into()], ..rule("list", "", "pods") }, ask("list", "", "pods", "", ""), false),
        ] {
            assert_eq!(rule.allows(&question), want, "{rule} {question:?}");
        }
    }

    #[test]
    fn paths() {
        for (rule, path, want) in [
            ("/api", "/api", true),
            ("/api", "/api/v1", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("*", "/x", true),
        ] {
            assert_eq!(url_matches(rule, path), want, "{rule} {path}");
        }
    }

    #[test]
    fn covering() {
        let named = |names: &[&str]| Rule {
            names: names.iter().map(|s| (*s).to_owned()).collect(),
            ..rule("get", "", "secrets")
        };
        assert!(missing(&[rule("get,list", "", "pods,services")], &[rule("list,get", "", "services")]).is_empty());
        assert_eq!(missing(&[rule("get", "", "pods")], &[rule("get,list", "", "pods")]), [rule("list", "", "pods")]);
        assert!(
            missing(&[rule("get", "", "pods"), rule("list", "", "pods")], &[rule("get,list", "", "pods")]).is_empty()
        );
        assert!(missing(&[Rule::everything()], &[rule("get", "", "pods/log")]).is_empty());
        assert!(!missing(&[rule("get", "", "pods")], &[rule("*", "", "pods")]).is_empty());
        assert!(missing(&[rule("get", "", "secrets")], &[named(&["a"])]).is_empty());
        assert!(!missing(&[named(&["a"])], &[rule("get", "", "secrets")]).is_empty());
        assert!(!missing(&[named(&["a"])], &[named(&["a", "b"])]).is_empty());
        assert!(!missing(&[Rule::everything()], &[Rule::every_path()]).is_empty());
    }

    #[test]
    fn text() {
        assert_eq!(rule("get", "", "pods").to_string(), r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#);
    }
}
