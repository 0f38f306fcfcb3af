//! How endpoints are dealt out to slices: what is there stays where it is, so that few slices change.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use mini_client::{Cache, Client};
use serde_json::json;

use crate::driver::{Outcome, Writes, code, optional};
use crate::owner::{controller_reference, controls};

/// Endpoints of one slice, at most.
const CAPACITY: usize = 100;

/// Endpoints that can share slices.
pub(crate) struct Group {
    pub(crate) family: String,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

type Labels = BTreeMap<String, String>;

/// How the slices of `owner`, `present` now, come to hold `groups`. The owner is a Service, or Endpoints that are mirrored.
pub(crate) fn plan<O: Resource<DynamicType = ()>>(
    owner: &O,
    labels: Labels,
    groups: Vec<Group>,
    present: Vec<Arc<EndpointSlice>>,
) -> Plan {
    let mut plan = Plan::default();
    let mut unused = present;
    for mut group in groups {
        let fits = |slice: &Arc<EndpointSlice>| {
            slice.address_type == group.family
                && slice.ports.clone().unwrap_or_default() == group.ports
                && controls(owner, &slice.metadata)
        };
        let (own, rest): (Vec<_>, Vec<_>) = unused.into_iter().partition(fits);
        unused = rest;
        let mut filled: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in own {
            let kept = keep(&slice, &mut group.endpoints);
            filled.push((slice, kept));
        }
        // The fullest take the newcomers first, so that others may empty.
        filled.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
        for (_, endpoints) in &mut filled {
            let room = CAPACITY.saturating_sub(endpoints.len()).min(group.endpoints.len());
            endpoints.extend(group.endpoints.drain(..room));
        }
        let some_left = filled.iter().any(|(_, endpoints)| !endpoints.is_empty());
        let mut placeholder = !some_left && group.endpoints.is_empty();
        for (slice, endpoints) in filled {
            if endpoints.is_empty() && !std::mem::take(&mut placeholder) {
                plan.delete.push(slice);
            } else if Some(&endpoints) != slice.endpoints.as_ref() || slice.metadata.labels.as_ref() != Some(&labels) {
                let mut next = slice.as_ref().clone();
                next.endpoints = Some(endpoints);
                next.metadata.labels = Some(labels.clone());
                plan.update.push(next);
            }
        }
        while !group.endpoints.is_empty() || std::mem::take(&mut placeholder) {
            let count = group.endpoints.len().min(CAPACITY);
            let endpoints = group.endpoints.drain(..count).collect();
            plan.create.push(make(owner, &labels, &group, endpoints));
        }
    }
    plan.delete.extend(unused);
    recycle(owner, &mut plan);
    plan
}

/// A slice to be deleted becomes one to be made, where only its ports differ: one write, and its name stays.
fn recycle<O: Resource<DynamicType = ()>>(owner: &O, plan: &mut Plan) {
    for made in std::mem::take(&mut plan.create) {
        let fits = |old: &Arc<EndpointSlice>| old.address_type == made.address_type && controls(owner, &old.metadata);
        let Some(at) = plan.delete.iter().position(fits) else {
            plan.create.push(made);
            continue;
        };
        let mut next = plan.delete.swap_remove(at).as_ref().clone();
        next.metadata.labels = made.metadata.labels;
        (next.endpoints, next.ports) = (made.endpoints, made.ports);
        plan.update.push(next);
    }
}

/// Takes out of `wished` what the slice already holds, in its present state.
fn keep(slice: &EndpointSlice, wished: &mut Vec<Endpoint>) -> Vec<Endpoint> {
    let identity = |endpoint: &Endpoint| {
        (endpoint.addresses.clone(), endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
    };
    let mut kept = Vec::new();
    for held in slice.endpoints.iter().flatten() {
        let held = identity(held);
        if let Some(at) = wished.iter().position(|endpoint| identity(endpoint) == held) {
            kept.push(wished.remove(at));
        }
    }
    kept
}

fn make<O: Resource<DynamicType = ()>>(
    owner: &O,
    labels: &Labels,
    group: &Group,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta().name.as_deref().unwrap_or_default())),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        address_type: group.family.clone(),
        endpoints: Some(endpoints),
        ports: Some(group.ports.clone()),
    }
}

pub(crate) async fn carry_out(
    client: &Client,
    slices: &Cache<EndpointSlice>,
    namespace: &str,
    plan: Plan,
    writes: &mut Writes,
) -> Outcome {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    for slice in plan.create {
        match api.create(&PostParams::default(), &slice).await {
            Ok(created) => writes.wrote(slices, &created),
            // The namespace is leaving.
            Err(error) if matches!(code(&error), 403 | 404) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for slice in plan.update {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let meta = json!({"labels": slice.metadata.labels, "resourceVersion": slice.metadata.resource_version});
        let patch = json!({"metadata": meta, "endpoints": slice.endpoints, "ports": slice.ports});
        let written = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        writes.wrote(slices, &written);
    }
    for slice in plan.delete {
        let name = slice.metadata.name.clone().unwrap_or_default();
        optional(api.delete(&name, &DeleteParams::default()).await)?;
        writes.deleted(slices, slice.as_ref());
    }
    Ok(None)
}
