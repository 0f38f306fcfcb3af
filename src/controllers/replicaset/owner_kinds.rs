//! The two kinds the engine serves.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use kube::core::Selector;
use serde_json::{Value, json};

use super::status::Counts;
use super::{ReplicaOwner, Wish};

fn count(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or_default()
}

impl ReplicaOwner for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";
    const TELLS_TERMINATING: bool = true;

    fn wish(&self) -> Option<Wish<'_>> {
        let spec = &self.spec;
        let selector = Selector::try_from(spec.selector.clone()).ok()?;
        (!selector.selects_all()).then_some(Wish {
            selector,
            template: spec.template.as_ref()?,
            replicas: count(spec.replicas),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
        })
    }

    fn counts(&self) -> Counts {
        let Some(status) = &self.status else { return Counts::default() };
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas,
            observed: status.observed_generation.unwrap_or_default(),
        }
    }

    fn conditions(&self) -> Value {
        json!(self.status.as_ref().and_then(|status| status.conditions.as_ref()))
    }
}

impl ReplicaOwner for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";
    const TELLS_TERMINATING: bool = false;

    fn wish(&self) -> Option<Wish<'_>> {
        let spec = self.spec.as_ref()?;
        let selector: Selector = spec.selector.clone().unwrap_or_default().into_iter().collect();
        (!selector.selects_all()).then_some(Wish {
            selector,
            template: spec.template.as_ref()?,
            replicas: count(spec.replicas),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or_default(),
        })
    }

    fn counts(&self) -> Counts {
        let Some(status) = &self.status else { return Counts::default() };
        Counts {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: None,
            observed: status.observed_generation.unwrap_or_default(),
        }
    }

    fn conditions(&self) -> Value {
        json!(self.status.as_ref().and_then(|status| status.conditions.as_ref()))
    }
}
