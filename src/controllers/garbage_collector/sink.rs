//! From a kind's watch into the graph.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope, Resource};
use mini_client::Sink;
use serde::Deserialize;
use tokio::sync::Notify;

use super::graph::Node;
use super::{Collector, Uid};
use crate::served::Served;

/// Any object, of which only the metadata is read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Stub {
    metadata: ObjectMeta,
}

impl Resource for Stub {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

pub(super) struct RowSink {
    pub(super) collector: Arc<Collector>,
    pub(super) row: Arc<Served>,
    pub(super) url: String,
}

impl RowSink {
    fn uid(stub: &Stub) -> Uid {
        Uid::from(stub.metadata.uid.as_deref().unwrap_or_default())
    }

    fn look_at(&self, suspects: Vec<Uid>) {
        suspects.into_iter().for_each(|uid| self.collector.queue.add(uid));
    }
}

impl Sink<Stub> for RowSink {
    fn replace(&self, listed: Vec<Stub>, _: u64) {
        let mut graph = self.collector.graph.lock();
        let uids: HashSet<Uid> = listed.iter().map(Self::uid).collect();
        let mut suspects = Vec::new();
        for gone in graph.missing(&self.row, &uids) {
            suspects.extend(graph.remove(&gone));
        }
        for stub in listed {
            suspects.extend(graph.apply(Self::uid(&stub), Node::of(&self.row, &stub.metadata)));
        }
        suspects.extend(graph.listed(&self.url));
        drop(graph);
        self.look_at(suspects);
    }

    fn apply(&self, stub: Stub) {
        let node = Node::of(&self.row, &stub.metadata);
        let suspects = self.collector.graph.lock().apply(Self::uid(&stub), node);
        self.look_at(suspects);
    }

    fn delete(&self, stub: Stub) {
        let suspects = self.collector.graph.lock().remove(&Self::uid(&stub));
        self.look_at(suspects);
    }

    fn advance(&self, _: u64) {}
}

/// Tells that some definition of a custom kind has changed.
pub(super) struct Definitions(pub(super) Arc<Notify>);

impl Sink<Stub> for Definitions {
    fn replace(&self, _: Vec<Stub>, _: u64) {
        self.0.notify_one();
    }

    fn apply(&self, _: Stub) {
        self.0.notify_one();
    }

    fn delete(&self, _: Stub) {
        self.0.notify_one();
    }

    fn advance(&self, _: u64) {}
}
