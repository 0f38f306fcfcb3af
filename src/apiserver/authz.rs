//! May they? RBAC from the roles in the store, and the Node authorizer for kubelets.
//!
//! Answers from memory, and from every write that was acknowledged before the question: the caches are caught up with
//! the store's committed head first. Knows no HTTP and no object but roles, bindings and what pods refer to.

pub mod bootstrap;
pub mod escalation;
pub(crate) mod feed;
mod node;
mod policy;
mod roles;
pub mod rule;

use crate::UserInfo;
use mini_api::{FieldSelector, Reason, Status};
use mini_store::Store;
use node::NodeAuthorizer;
pub(crate) use node::{Kind as Referent, name_of as node_name, references};
use policy::Roles;
use rule::Rule;

/// The group whose members may do anything; no role can take that from them.
pub(crate) const MASTERS: &str = "system:masters";

/// What is asked of the authorizer: upstream's `authorizer.Attributes`.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// What a list or a watch is narrowed to; `None` if it is not, or not in a way that can be understood.
    pub fields: Option<&'a FieldSelector>,
    pub resource_request: bool,
}

impl<'a> Attributes<'a> {
    /// A question about a resource; the fields that are left empty here are filled with struct update.
    #[must_use]
    pub fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user,
            verb,
            group,
            version: "",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            fields: None,
            resource_request: true,
        }
    }

    /// 403 in upstream's words. `reason` may be empty.
    #[must_use]
    pub fn forbidden(&self, reason: &str) -> Status {
        let (user, verb) = (&self.user.name, self.verb);
        let mut why = if self.resource_request {
            let slash = if self.subresource.is_empty() { "" } else { "/" };
            let place = match self.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            let (resource, group) = (self.resource, self.group);
            let subresource = self.subresource;
            format!(
                "User \"{user}\" cannot {verb} resource \"{resource}{slash}{subresource}\" in API group \"{group}\" {place}"
            )
        } else {
            format!("User \"{user}\" cannot {verb} path \"{}\"", self.path)
        };
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        if self.resource_request {
            Status::forbidden(self.group, self.resource, self.name, &why)
        } else {
            Status::new(Reason::Forbidden, format!("forbidden: {why}"))
        }
    }
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Nobody allows it; the reason goes into the message if it is not empty.
    NoOpinion(String),
}

/// All rules of a user in a namespace, for `SelfSubjectRulesReview`.
pub struct RulesOf {
    pub rules: Vec<Rule>,
    /// Empty unless the list is incomplete.
    pub error: String,
}

/// Answers from the roles in the store.
pub struct Authorizer {
    roles: Roles,
    nodes: NodeAuthorizer,
}

impl Authorizer {
    pub(crate) fn new(store: &Store) -> Self {
        Self { roles: Roles::new(store), nodes: NodeAuthorizer::new(store) }
    }

    #[must_use]
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(MASTERS) {
            return Decision::Allow;
        }
        let node = self.nodes.authorize(attributes);
        if node == Some(Decision::Allow) {
            return Decision::Allow;
        }
        let policy = self.roles.current();
        if policy.allows(attributes).is_some() {
            return Decision::Allow;
        }
        Decision::NoOpinion(join(node, policy.errors(attributes.user, attributes.namespace)))
    }

    /// As [`Self::authorize`], for those who go no further without leave.
    ///
    /// # Errors
    /// 403.
    pub fn require(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        match self.authorize(attributes) {
            Decision::Allow => Ok(()),
            Decision::NoOpinion(reason) => Err(attributes.forbidden(&reason)),
        }
    }

    /// As [`Self::authorize`], with the reason of an allowance in upstream's words.
    #[must_use]
    pub fn explain(&self, attributes: &Attributes<'_>) -> (bool, String) {
        if attributes.user.is_in(MASTERS) {
            return (true, String::new());
        }
        match self.authorize(attributes) {
            Decision::NoOpinion(reason) => (false, reason),
            Decision::Allow => {
                let policy = self.roles.current();
                let source = policy.allows(attributes).map(|grant| format!("RBAC: allowed by {grant}"));
                (true, source.unwrap_or_default())
            }
        }
    }

    /// Every rule that holds for the user in the namespace.
    #[must_use]
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> RulesOf {
        let policy = self.roles.current();
        let mut rules = Vec::new();
        if user.is_in(MASTERS) {
            rules.extend([Rule::everything(), Rule::every_path()]);
        }
        policy.visit(user, namespace, |grant| {
            rules.extend(grant.rules.iter().flat_map(|rules| rules.iter().cloned()));
            true
        });
        let mut error = policy.errors(user, namespace);
        if node_name(user).is_some() {
            let node = "node authorizer does not support user rule resolution";
            error = if error.is_empty() { node.to_owned() } else { format!("{error}, {node}") };
        }
        RulesOf { rules, error }
    }

    /// The rules of a role that a binding in `namespace` (empty for a ClusterRoleBinding) refers to; `None` if it does not exist.
    #[must_use]
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<std::sync::Arc<[Rule]>> {
        self.roles.current().role(kind, namespace, name)
    }
}

fn join(node: Option<Decision>, rbac: String) -> String {
    match node {
        Some(Decision::NoOpinion(node)) if !node.is_empty() => {
            if rbac.is_empty() {
                node
            } else {
                format!("[{node}, {rbac}]")
            }
        }
        _ => rbac,
    }
}
