//! ClusterRoles with an aggregation rule hold the rules of all roles it selects.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Selector;
use mini_client::{Cache, Caches, Client};
use serde_json::json;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::owner::matches;

pub(crate) struct Controller {
    client: Client,
    roles: Cache<ClusterRole>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), roles: caches.of() }
    }
}

fn selectors(role: &ClusterRole) -> Vec<Selector> {
    let rule = role.aggregation_rule.as_ref();
    let selectors = rule.and_then(|rule| rule.cluster_role_selectors.clone()).unwrap_or_default();
    selectors.into_iter().filter_map(|selector| Selector::try_from(selector).ok()).collect()
}

/// The rules of all selected roles, by name, each once.
fn union(of: &ClusterRole, mut roles: Vec<Arc<ClusterRole>>) -> Vec<PolicyRule> {
    let selectors = selectors(of);
    roles.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let selected = roles.iter().filter(|role| {
        role.metadata.name != of.metadata.name && selectors.iter().any(|selector| matches(selector, &role.metadata))
    });
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in selected.flat_map(|role| role.rules.iter().flatten()) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    rules
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn sources(&self) -> Vec<Source> {
        let roles = self.roles.clone();
        vec![Source::of(&self.roles, move |_| {
            let aggregated = roles.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            aggregated.map(|role| Key::of(role.as_ref())).collect()
        })]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(role) = self.roles.get("", &key.name).filter(|role| role.aggregation_rule.is_some()) else {
            return Ok(None);
        };
        let rules = union(&role, self.roles.list());
        if role.rules.clone().unwrap_or_default() == rules {
            return Ok(None);
        }
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"uid": role.metadata.uid}, "rules": rules}));
        if let Some(written) = optional(api.patch(&key.name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.roles, &written);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_union_holds_each_rule_of_the_selected_roles_once() {
        let role = |name: &str, labels: serde_json::Value, resource: &str| {
            Arc::new(
                serde_json::from_value::<ClusterRole>(json!({"metadata": {"name": name, "labels": labels},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]}))
                .unwrap(),
            )
        };
        let view: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "view"}, "aggregationRule":
            {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}))
        .unwrap();
        let roles = vec![
            role("b", json!({"to-view": "true"}), "pods"),
            role("a", json!({"to-view": "true"}), "pods"),
            role("c", json!({}), "secrets"),
        ];
        let rules = union(&view, roles);
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].resources.as_deref(), Some(&["pods".to_owned()][..]));
    }
}
