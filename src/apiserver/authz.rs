//! May they?

use crate::UserInfo;
use crate::pending::Store;

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
    pub resource_request: bool,
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Nobody allows it; the reason goes into the message if it is not empty.
    NoOpinion(String),
}

/// Answers from the roles in the store.
pub struct Authorizer {
    _store: Store,
}

impl Authorizer {
    pub(crate) fn new(store: &Store) -> Self {
        Self { _store: store.clone() }
    }

    #[must_use]
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in("system:masters") { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }
}
