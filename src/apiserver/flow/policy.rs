//! FlowSchemas and PriorityLevelConfigurations as the store has them, read once per change.

use super::Flow;
use crate::{RequestInfo, UserInfo};
use mini_store::Snapshot;
use serde::Deserialize;
use std::sync::Arc;

pub(super) const SCHEMAS: &str = "/registry/flowschemas.flowcontrol.apiserver.k8s.io/";
pub(super) const LEVELS: &str = "/registry/prioritylevelconfigurations.flowcontrol.apiserver.k8s.io/";

/// What decides where a request belongs.
#[derive(Default)]
pub(super) struct Policy {
    /// The first that matches decides.
    schemas: Vec<(Arc<Schema>, Arc<Level>)>,
    pub(super) levels: Vec<Arc<Level>>,
}

pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    spec: SchemaSpec,
}

pub(super) struct Level {
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    /// None: exempt.
    pub(super) limited: Option<Limited>,
}

#[derive(Deserialize)]
struct Stored<T> {
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaSpec {
    priority_level_configuration: Reference,
    #[serde(default)]
    matching_precedence: i64,
    distinguisher_method: Option<Distinguisher>,
    #[serde(default)]
    rules: Vec<Rules>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
}

#[derive(Deserialize)]
struct Distinguisher {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    resource_rules: Vec<ResourceRule>,
    #[serde(default)]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Option<Reference>,
    group: Option<Reference>,
    service_account: Option<Account>,
}

#[derive(Deserialize)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    cluster_scope: bool,
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Deserialize)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

#[derive(Deserialize)]
struct LevelSpec {
    r#type: String,
    limited: Option<Limited>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limited {
    #[serde(default)]
    pub(super) nominal_concurrency_shares: usize,
    #[serde(default)]
    pub(super) lendable_percent: usize,
    pub(super) borrowing_limit_percent: Option<usize>,
    limit_response: LimitResponse,
}

#[derive(Clone, Deserialize)]
struct LimitResponse {
    queuing: Option<Queuing>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queuing {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl Limited {
    /// How many requests may wait, and how many of them of one flow: the room of upstream's queues, and of a flow's hand.
    /// None: nobody waits.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let queuing = self.limit_response.queuing?;
        let length = queuing.queue_length_limit;
        Some((queuing.queues.saturating_mul(length), queuing.hand_size.saturating_mul(length)))
    }
}

impl Policy {
    pub(super) fn read(snapshot: &Snapshot) -> Self {
        let levels: Vec<Arc<Level>> = objects::<LevelSpec>(snapshot, LEVELS)
            .map(|stored| {
                let limited = stored.spec.limited.filter(|_| stored.spec.r#type == "Limited");
                Arc::new(Level { name: stored.metadata.name.into(), uid: stored.metadata.uid, limited })
            })
            .collect();
        // One that leads nowhere is passed over.
        let level = |spec: &SchemaSpec| {
            levels.iter().find(|level| *level.name == *spec.priority_level_configuration.name).cloned()
        };
        let mut schemas: Vec<_> = objects::<SchemaSpec>(snapshot, SCHEMAS)
            .filter_map(|stored| {
                let level = level(&stored.spec)?;
                let (name, uid) = (stored.metadata.name.into(), stored.metadata.uid);
                Some((Arc::new(Schema { name, uid, spec: stored.spec }), level))
            })
            .collect();
        schemas.sort_by(|(a, _), (b, _)| {
            (a.spec.matching_precedence, &a.name).cmp(&(b.spec.matching_precedence, &b.name))
        });
        Self { schemas, levels }
    }

    pub(super) fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Flow> {
        let (schema, level) = self.schemas.iter().find(|(schema, _)| schema.matches(user, info))?;
        let of = match schema.spec.distinguisher_method.as_ref().map(|method| method.r#type.as_str()) {
            Some("ByUser") => user.name.clone(),
            Some("ByNamespace") => info.namespace.clone(),
            _ => String::new(),
        };
        Some(Flow { schema: schema.clone(), level: level.clone(), of })
    }
}

/// What is stored was validated; what cannot be read all the same is passed over.
fn objects<'a, T: for<'de> Deserialize<'de>>(
    snapshot: &'a Snapshot,
    prefix: &'a str,
) -> impl Iterator<Item = Stored<T>> + 'a {
    snapshot.range(prefix, None).filter_map(|entry| match serde_json::from_slice(&entry.bytes) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::warn!(key = &*entry.key, %error, "an object of flow control cannot be read");
            None
        }
    })
}

/// `*` stands for all.
fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Schema {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.spec.rules.iter().any(|rules| {
            rules.subjects.iter().any(|subject| subject.matches(user))
                && if info.resource_request {
                    rules.resource_rules.iter().any(|rule| rule.matches(info))
                } else {
                    rules.non_resource_rules.iter().any(|rule| rule.matches(info))
                }
        })
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.as_ref().is_some_and(|wanted| wanted.name == "*" || wanted.name == user.name),
            "Group" => self.group.as_ref().is_some_and(|wanted| wanted.name == "*" || user.is_in(&wanted.name)),
            "ServiceAccount" => self.service_account.as_ref().is_some_and(|wanted| {
                let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
                rest.is_some_and(|(namespace, name)| {
                    wanted.namespace == namespace && (wanted.name == "*" || wanted.name == name)
                })
            }),
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let scope =
            if info.namespace.is_empty() { self.cluster_scope } else { holds(&self.namespaces, &info.namespace) };
        let resource = || match info.subresource.as_str() {
            "" => holds(&self.resources, &info.resource),
            subresource => self.resources.iter().any(|resource| {
                resource == "*" || resource.split_once('/') == Some((info.resource.as_str(), subresource))
            }),
        };
        scope && holds(&self.verbs, &info.verb) && holds(&self.api_groups, &info.group) && resource()
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let url = |url: &String| match url.strip_suffix('*') {
            Some(start) => info.path.starts_with(start),
            None => *url == info.path,
        };
        holds(&self.verbs, &info.verb) && self.urls.iter().any(url)
    }
}
