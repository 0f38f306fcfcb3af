//! Roles and bindings, parsed, and indexed by who they are for.

use super::Attributes;
use super::feed::{Change, Feed};
use super::rule::Rule;
use crate::UserInfo;
use mini_api::{Meta, Value};
use mini_store::Store;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

// Each covers both the roles and the bindings of its scope.
const CLUSTER: &str = "/registry/clusterrole";
const NAMESPACED: &str = "/registry/role";
const GROUP: &str = ".rbac.authorization.k8s.io/";

/// The cache of everything RBAC.
pub(super) struct Roles {
    store: Store,
    current: RwLock<(u64, Arc<Policy>)>,
    source: Mutex<Source>,
}

struct Source {
    feeds: [Feed; 2],
    objects: Objects,
}

impl Roles {
    pub(super) fn new(store: &Store) -> Self {
        let source = Source { feeds: [Feed::new(CLUSTER), Feed::new(NAMESPACED)], objects: Objects::default() };
        // Revision 0 is before the first write, so the first question fills the cache.
        Self { store: store.clone(), current: RwLock::new((0, Arc::default())), source: Mutex::new(source) }
    }

    /// The policy with every acknowledged write in it.
    pub(super) fn current(&self) -> Arc<Policy> {
        let head = self.store.revision();
        {
            let current = self.current.read();
            if current.0 >= head {
                return current.1.clone();
            }
        }
        let mut source = self.source.lock();
        let Source { feeds, objects } = &mut *source;
        let mut changed = false;
        for feed in feeds {
            let prefix = feed.prefix();
            changed |= feed.drain(&self.store, |change| objects.apply(prefix, &change));
        }
        let mut current = self.current.write();
        if changed {
            current.1 = Arc::new(objects.index());
        }
        current.0 = current.0.max(head);
        current.1.clone()
    }
}

#[derive(Default)]
struct Objects {
    /// By key.
    roles: BTreeMap<String, Role>,
    bindings: BTreeMap<String, Binding>,
}

struct Role {
    /// Empty for a ClusterRole.
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    rules: Arc<[Rule]>,
    /// `aggregationRule.clusterRoleSelectors`.
    aggregates: Option<Vec<mini_api::LabelSelector>>,
}

struct Binding {
    namespace: String,
    name: String,
    role_kind: String,
    role_name: String,
    /// Kind, namespace, name.
    subjects: Vec<(String, String, String)>,
}

impl Objects {
    fn apply(&mut self, prefix: &str, change: &Change<'_>) {
        match change {
            Change::Reset => {
                self.roles.retain(|key, _| !key.starts_with(prefix));
                self.bindings.retain(|key, _| !key.starts_with(prefix));
            }
            Change::Delete(key) => {
                self.roles.remove(*key);
                self.bindings.remove(*key);
            }
            Change::Put(entry) => {
                let Some((resource, _)) = entry.key.strip_prefix("/registry/").and_then(|k| k.split_once(GROUP)) else {
                    return;
                };
                let Ok(object) = serde_json::from_slice::<Value>(&entry.bytes) else { return };
                let key = entry.key.to_string();
                match resource {
                    "roles" | "clusterroles" => drop(self.roles.insert(key, Role::parse(&object))),
                    "rolebindings" | "clusterrolebindings" => drop(self.bindings.insert(key, Binding::parse(&object))),
                    _ => {}
                }
            }
        }
    }

    fn index(&self) -> Policy {
        let mut policy = Policy::default();
        for role in self.roles.values() {
            let rules = match role.aggregates {
                None => role.rules.clone(),
                Some(_) => {
                    let mut rules = Vec::new();
                    self.aggregate(role, &mut rules, &mut HashSet::new());
                    rules.into()
                }
            };
            policy.roles.entry(role.namespace.clone()).or_default().insert(role.name.clone(), rules);
        }
        for binding in self.bindings.values() {
            let role_scope = if binding.role_kind == "Role" { binding.namespace.as_str() } else { "" };
            let rules = policy.roles.get(role_scope).and_then(|roles| roles.get(&binding.role_name)).cloned();
            let scope = policy.scopes.entry(binding.namespace.clone()).or_default();
            for (kind, namespace, name) in &binding.subjects {
                let grant = Arc::new(Grant {
                    namespace: binding.namespace.clone(),
                    binding: binding.name.clone(),
                    role_kind: binding.role_kind.clone(),
                    role_name: binding.role_name.clone(),
                    subject: (kind.clone(), namespace.clone(), name.clone()),
                    rules: rules.clone(),
                });
                let (map, who) = match kind.as_str() {
                    "User" => (&mut scope.users, name.clone()),
                    "Group" => (&mut scope.groups, name.clone()),
                    "ServiceAccount" if !namespace.is_empty() => {
                        (&mut scope.users, format!("system:serviceaccount:{namespace}:{name}"))
                    }
                    _ => continue,
                };
                map.entry(who).or_default().push(grant);
            }
        }
        policy
    }

    /// The union of the rules of the selected roles, theirs taken the same way.
    fn aggregate<'a>(&'a self, role: &'a Role, rules: &mut Vec<Rule>, seen: &mut HashSet<&'a str>) {
        if !seen.insert(&role.name) {
            return;
        }
        let Some(selectors) = &role.aggregates else {
            for rule in role.rules.iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            return;
        };
        for other in self.roles.values().filter(|r| r.namespace.is_empty()) {
            let labels = other.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
            if selectors.iter().any(|selector| selector.matches(Some(&labels))) {
                self.aggregate(other, rules, seen);
            }
        }
    }
}

impl Role {
    fn parse(object: &Value) -> Self {
        let aggregates = object.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
        let labels = object.labels().into_iter().flatten();
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            labels: labels.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
            rules: Rule::list(object).into(),
            aggregates: aggregates
                .map(|list| list.iter().filter_map(|s| mini_api::LabelSelector::from_value(s).ok()).collect()),
        }
    }
}

impl Binding {
    fn parse(object: &Value) -> Self {
        let namespace = object.namespace().to_owned();
        let subjects = object.get("subjects").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let subjects = subjects.iter().map(|subject| {
            let text = |field| subject.text(&[field]).to_owned();
            let own = text("namespace");
            // A service account without a namespace is one of the binding's own.
            (text("kind"), if own.is_empty() { namespace.clone() } else { own }, text("name"))
        });
        Self {
            subjects: subjects.collect(),
            name: object.name().to_owned(),
            role_kind: object.text(&["roleRef", "kind"]).to_owned(),
            role_name: object.text(&["roleRef", "name"]).to_owned(),
            namespace,
        }
    }
}

/// Everything RBAC says, at one revision.
#[derive(Default)]
pub(super) struct Policy {
    /// Namespace (empty for ClusterRoles), then name.
    roles: HashMap<String, HashMap<String, Arc<[Rule]>>>,
    scopes: HashMap<String, Scope>,
}

#[derive(Default)]
struct Scope {
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

/// One subject of one binding.
pub(super) struct Grant {
    namespace: String,
    binding: String,
    role_kind: String,
    role_name: String,
    subject: (String, String, String),
    /// `None`: the role does not exist.
    pub(super) rules: Option<Arc<[Rule]>>,
}

impl Policy {
    /// Calls `each` with what is granted to the user in the namespace and everywhere, until it answers false.
    pub(super) fn visit<'a>(&'a self, user: &UserInfo, namespace: &str, mut each: impl FnMut(&'a Arc<Grant>) -> bool) {
        let scopes = [Some(""), Some(namespace).filter(|n| !n.is_empty())];
        for scope in scopes.into_iter().flatten().filter_map(|n| self.scopes.get(n)) {
            let groups = user.groups.iter().filter_map(|group| scope.groups.get(group));
            for grant in scope.users.get(&user.name).into_iter().chain(groups).flatten() {
                if !each(grant) {
                    return;
                }
            }
        }
    }

    /// Who allows it.
    pub(super) fn allows(&self, attributes: &Attributes<'_>) -> Option<Arc<Grant>> {
        let mut found = None;
        self.visit(attributes.user, attributes.namespace, |grant| {
            if grant.rules.iter().any(|rules| rules.iter().any(|rule| rule.allows(attributes))) {
                found = Some(grant.clone());
            }
            found.is_none()
        });
        found
    }

    /// Upstream's words for bindings of the user whose role is not there; empty if there are none.
    pub(super) fn errors(&self, user: &UserInfo, namespace: &str) -> String {
        let mut errors = Vec::new();
        self.visit(user, namespace, |grant| {
            if grant.rules.is_none() {
                let kind = grant.role_kind.to_lowercase();
                let error = format!("{kind}.rbac.authorization.k8s.io \"{}\" not found", grant.role_name);
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
            true
        });
        match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }

    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.roles.get(if kind == "Role" { namespace } else { "" })?.get(name).cloned()
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, namespace, name) = &self.subject;
        if self.namespace.is_empty() {
            write!(f, "ClusterRoleBinding {:?}", self.binding)?;
        } else {
            write!(f, "RoleBinding \"{}/{}\"", self.binding, self.namespace)?;
        }
        write!(f, " of {} {:?} to {kind} ", self.role_kind, self.role_name)?;
        if kind == "ServiceAccount" { write!(f, "\"{name}/{namespace}\"") } else { write!(f, "{name:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(objects: &[Value]) -> Policy {
        let mut all = Objects::default();
        for (i, object) in objects.iter().enumerate() {
            if object.get("roleRef").is_some() {
                all.bindings.insert(i.to_string(), Binding::parse(object));
            } else {
                all.roles.insert(i.to_string(), Role::parse(object));
            }
        }
        all.index()
    }

    fn role(namespace: &str, name: &str, verb: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace},
               "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
    }

    fn binding(namespace: &str, kind: &str, role: &str, subject: Value) -> Value {
        json!({"metadata": {"name": "b", "namespace": namespace}, "subjects": [subject],
               "roleRef": {"kind": kind, "name": role, "apiGroup": "rbac.authorization.k8s.io"}})
    }

    fn may(policy: &Policy, user: &UserInfo, verb: &str, namespace: &str) -> bool {
        policy.allows(&Attributes { namespace, ..Attributes::resource(user, verb, "", "pods") }).is_some()
    }

    #[test]
    fn a_role_binding_holds_in_its_namespace_only() {
        let p = policy(&[
            role("", "getter", "get"),
            binding("a", "ClusterRole", "getter", json!({"kind": "User", "name": "u"})),
        ]);
        let user = UserInfo::new("u", &[]);
        assert!(may(&p, &user, "get", "a"));
        assert!(!may(&p, &user, "get", "b"));
        assert!(!may(&p, &user, "get", ""));
        assert!(!may(&p, &user, "list", "a"));
        assert!(!may(&p, &UserInfo::new("v", &[]), "get", "a"));
    }

    #[test]
    fn service_accounts_and_groups_are_subjects() {
        let p = policy(&[
            role("a", "getter", "get"),
            binding("a", "Role", "getter", json!({"kind": "ServiceAccount", "name": "s"})),
            role("", "lister", "list"),
            binding("", "ClusterRole", "lister", json!({"kind": "Group", "name": "g"})),
        ]);
        assert!(may(&p, &UserInfo::new("system:serviceaccount:a:s", &[]), "get", "a"));
        assert!(!may(&p, &UserInfo::new("system:serviceaccount:b:s", &[]), "get", "a"));
        assert!(may(&p, &UserInfo::new("x", &["g"]), "list", "anywhere"));
    }

    #[test]
    fn cluster_roles_aggregate_through_others_and_round_in_circles() {
        let labelled = |name: &str, label: &str, mut object: Value| {
            object["metadata"] = json!({"name": name, "labels": {label: "true"}});
            object
        };
        let selecting =
            |label: &str| json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}});
        let p = policy(&[
            labelled("edit", "to-admin", selecting("to-edit")),
            labelled("admin", "to-edit", selecting("to-admin")),
            labelled("x", "to-edit", role("", "x", "watch")),
            binding("", "ClusterRole", "admin", json!({"kind": "User", "name": "u"})),
        ]);
        assert!(may(&p, &UserInfo::new("u", &[]), "watch", "a"));
    }

    #[test]
    fn a_binding_to_nothing_is_told() {
        let p = policy(&[binding("", "ClusterRole", "gone", json!({"kind": "User", "name": "u"}))]);
        let user = UserInfo::new("u", &[]);
        assert_eq!(p.errors(&user, "a"), "RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found");
    }

    #[test]
    fn the_source_of_an_allowance_is_told() {
        let p = policy(&[
            role("", "getter", "get"),
            binding("a", "ClusterRole", "getter", json!({"kind": "User", "name": "u"})),
        ]);
        let user = UserInfo::new("u", &[]);
        let grant = p.allows(&Attributes { namespace: "a", ..Attributes::resource(&user, "get", "", "pods") }).unwrap();
        assert_eq!(grant.to_string(), "RoleBinding \"b/a\" of ClusterRole \"getter\" to User \"u\"");
    }
}
