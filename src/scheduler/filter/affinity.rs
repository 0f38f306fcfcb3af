//! The terms of inter-pod affinity: which pods they mean.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};
use mini_client::Cache;

/// A term ready to be asked.
pub(crate) struct Term {
    pub(crate) topology: String,
    selector: Option<Selector>,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

fn labels(map: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    map.cloned().unwrap_or_default()
}

pub(super) fn compile(selector: Option<&LabelSelector>) -> Option<Selector> {
    Selector::try_from(selector?.clone()).ok()
}

impl Term {
    /// A term as `owner` means it: without any namespace it is about the owner's own.
    pub(crate) fn of(term: &PodAffinityTerm, owner: &Pod) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(owner.metadata.namespace.clone());
        }
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            let own = labels(owner.metadata.labels.as_ref());
            let keys = term.match_label_keys.iter().flatten();
            let same = keys.filter_map(|key| Some((key.clone(), own.get(key)?.clone())));
            selector.match_labels.get_or_insert_default().extend(same);
            let keys = term.mismatch_label_keys.iter().flatten();
            let other = keys.filter_map(|key| {
                let values = Some(vec![own.get(key)?.clone()]);
                Some(LabelSelectorRequirement { key: key.clone(), operator: "NotIn".to_owned(), values })
            });
            selector.match_expressions.get_or_insert_default().extend(other);
        }
        Self {
            topology: term.topology_key.clone(),
            selector: compile(selector.as_ref()),
            namespaces,
            namespace_selector: compile(term.namespace_selector.as_ref()),
        }
    }
}

pub(crate) fn matches_term(term: &Term, pod: &Pod, namespaces: &Cache<Namespace>) -> bool {
    let Some(selector) = &term.selector else { return false };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let named = term.namespaces.iter().any(|name| name == namespace);
    let selected = || {
        let Some(selector) = &term.namespace_selector else { return false };
        let found = namespaces.get("", namespace);
        selector.matches(&labels(found.as_ref().and_then(|found| found.metadata.labels.as_ref())))
    };
    (named || selected()) && selector.matches(&labels(pod.metadata.labels.as_ref()))
}
