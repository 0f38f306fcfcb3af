//! What is recorded of which request: upstream's `audit.k8s.io/v1` Policy.

use crate::{Error, RequestInfo, UserInfo};
use mini_api::names;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) level: Level,
    omitted: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

impl Scope {
    pub(super) fn wants(&self, stage: Stage) -> bool {
        !self.omitted.contains(&stage)
    }
}

impl Policy {
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|why| Error::Material { path: path.to_owned(), what: "audit policy", why })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value = crate::negotiate::yaml(text).map_err(first_line)?;
        let policy: Self = serde_json::from_value(value).map_err(first_line)?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("it is a {} of {}, not a Policy of audit.k8s.io/v1", policy.kind, policy.api_version));
        }
        if policy.rules.is_empty() {
            return Err("it has no rules".to_owned());
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{i}]: {why}"))?;
        }
        Ok(policy)
    }

    /// The first rule that matches decides; without one nothing is recorded.
    pub(super) fn scope(&self, user: &UserInfo, info: &RequestInfo) -> Option<Scope> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, info)).filter(|rule| rule.level > Level::None)?;
        Some(Scope {
            level: rule.level,
            omitted: [self.omit_stages.as_slice(), &rule.omit_stages].concat(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

fn first_line(error: impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        for url in self.urls.iter().filter(|url| *url != "*") {
            if !url.starts_with('/') {
                return Err(format!("{url:?}: non-resource URL rules must begin with a '/' character"));
            }
            if url.trim_end_matches('*').contains('*') || url.ends_with("**") {
                return Err(format!("{url:?}: non-resource URL wildcards '*' must be the final character of the rule"));
            }
        }
        let of_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_objects && !self.urls.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs".to_owned());
        }
        for part in &self.resources {
            if !matches!(part.group.as_str(), "" | "*")
                && let Some(why) = names::is_dns1123_subdomain(&part.group).first()
            {
                return Err(format!("group {:?}: {why}", part.group));
            }
            if part.resources.is_empty() && !part.resource_names.is_empty() {
                return Err("using resourceNames requires at least one resource".to_owned());
            }
        }
        Ok(())
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let has = |list: &[String], wanted: &str| list.is_empty() || list.iter().any(|item| item == wanted);
        if !has(&self.users, &user.name) || !has(&self.verbs, &info.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.is_in(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.resource_request
                && has(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|part| part.matches(info)));
        }
        let url = |url: &String| match url.strip_suffix('*') {
            Some(start) => info.path.starts_with(start),
            None => *url == info.path,
        };
        self.urls.is_empty() || !info.resource_request && self.urls.iter().any(url)
    }
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        let (resource, subresource) = (info.resource.as_str(), info.subresource.as_str());
        let means = |wanted: &String| match wanted.split_once('/') {
            None => wanted == "*" || subresource.is_empty() && wanted == resource,
            Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
            Some((own, "*")) => own == resource,
            Some((own, sub)) => own == resource && sub == subresource,
        };
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let group = self.group == "*" || self.group == info.group;
        group && (self.resources.is_empty() || named && self.resources.iter().any(means))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Query;

    fn policy(rules: &str) -> Result<Policy, String> {
        Policy::parse(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}").as_bytes())
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = policy(
            "- {level: None, users: [quiet]}\n\
             - {level: Metadata, resources: [{resources: [secrets, '*/token', pods/*]}], omitStages: [RequestReceived]}\n\
             - {level: Request, verbs: [create], resources: [{group: apps}], namespaces: [a]}\n\
             - {level: RequestResponse, resources: [{resources: [configmaps], resourceNames: [c]}], omitManagedFields: true}\n\
             - {level: Metadata, userGroups: [dev], nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Request, resources: [{resources: ['*']}]}\n\
             - {level: Metadata, verbs: [delete], resources: [{group: '*', resources: [jobs]}]}\n",
        )
        .unwrap();
        let level = |user: &UserInfo, method: &str, path: &str| {
            let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::default());
            policy.scope(user, &info).map_or(Level::None, |scope| scope.level)
        };
        let (jane, dev, quiet) =
            (UserInfo::new("jane", &[]), UserInfo::new("d", &["dev"]), UserInfo::new("quiet", &[]));
        for (user, method, path, want) in [
            (&quiet, "GET", "/api/v1/secrets", Level::None),
            (&jane, "GET", "/api/v1/secrets", Level::Metadata),
            (&jane, "POST", "/api/v1/namespaces/a/serviceaccounts/s/token", Level::Metadata),
            (&jane, "GET", "/api/v1/namespaces/a/pods/p/log", Level::Metadata),
            (&jane, "POST", "/apis/apps/v1/namespaces/a/deployments", Level::Request),
            (&jane, "POST", "/apis/apps/v1/namespaces/b/deployments", Level::None),
            (&jane, "GET", "/api/v1/namespaces/a/configmaps/c", Level::RequestResponse),
            (&jane, "GET", "/api/v1/namespaces/a/configmaps/d", Level::Request),
            (&jane, "GET", "/api/v1/namespaces/a/services/s/status", Level::Request),
            (&jane, "GET", "/healthz", Level::None),
            (&jane, "DELETE", "/apis/batch/v1/namespaces/a/jobs/j", Level::Metadata),
            (&jane, "DELETE", "/apis/batch/v1/namespaces/a/cronjobs/j", Level::None),
            (&dev, "GET", "/healthz/ping", Level::Metadata),
            (&dev, "GET", "/version", Level::Metadata),
            (&dev, "GET", "/versions", Level::None),
        ] {
            assert_eq!(level(user, method, path), want, "{} {method} {path}", user.name);
        }
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/secrets", &Query::default());
        let scope = policy.scope(&jane, &info).unwrap();
        assert!(!scope.wants(Stage::RequestReceived) && scope.wants(Stage::ResponseComplete));
    }

    #[test]
    fn bad_policies_are_refused_with_a_sentence() {
        for (rules, said) in [
            ("- {level: All}", "unknown variant `All`"),
            ("- {levels: None}", "unknown field `levels`"),
            ("- {users: [a]}", "missing field `level`"),
            (
                "- {level: None, nonResourceURLs: [healthz]}",
                "rules[0]: \"healthz\": non-resource URL rules must begin with a '/'",
            ),
            ("- {level: None, nonResourceURLs: ['/a*b']}", "must be the final character"),
            ("- {level: None, nonResourceURLs: [/a], namespaces: [b]}", "both regular resources and non-resource"),
            ("- {level: None, resources: [{group: a/v1}]}", "group \"a/v1\""),
            ("- {level: None, resources: [{resourceNames: [a]}]}", "requires at least one resource"),
            ("  []", "it has no rules"),
        ] {
            let why = policy(rules).unwrap_err();
            assert!(why.contains(said) && !why.contains('\n'), "{rules}: {why}");
        }
        let why = Policy::parse(b"apiVersion: v1\nkind: Policy\nrules: [{level: None}]").unwrap_err();
        assert_eq!(why, "it is a Policy of v1, not a Policy of audit.k8s.io/v1");
    }
}
