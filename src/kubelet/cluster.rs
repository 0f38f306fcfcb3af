//! The narrow door to the API: what a pod worker reads from the cluster, and what it tells it.
//!
//! The kubelet proper stands behind this trait, so pods can be run without any API server. Invariant: `report` and
//! `event` never wait; nothing on the way from a pod to its containers waits for a write.

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Secret, Service,
};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// `configmap "x" not found`.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Other(String),
}

impl Error {
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// An object that a pod refers to and whose changes shall wake it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    ConfigMap { namespace: String, name: String },
    Secret { namespace: String, name: String },
}

/// A bound service account token.
#[derive(Clone, Debug)]
pub struct Token {
    pub token: String,
    pub expires: jiff::Timestamp,
}

/// What a token shall be good for.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    pub audience: Option<String>,
    pub expiration_seconds: i64,
    pub pod_name: String,
    pub pod_uid: String,
}

pub trait Cluster: Send + Sync + 'static {
    fn config_map<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<ConfigMap, Error>>;
    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<Secret, Error>>;
    fn claim<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<PersistentVolumeClaim, Error>>;
    fn volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<PersistentVolume, Error>>;
    /// This node as the API has it; `None` while it is not known.
    fn node(&self) -> Option<Arc<Node>>;
    /// Every Service, for the environment of containers; waits until they are known.
    fn services(&self) -> BoxFuture<'_, Vec<Arc<Service>>>;
    fn token<'a>(
        &'a self,
        namespace: &'a str,
        account: &'a str,
        spec: TokenSpec,
    ) -> BoxFuture<'a, Result<Token, Error>>;
    /// From now on changes of exactly these objects wake the pod `uid`; an empty set ends it.
    fn follow(&self, uid: &str, references: BTreeSet<Reference>);
    /// Takes the newest status of a pod; written when there is time, and only when it differs from what was written.
    fn report(&self, pod: &Arc<Pod>, status: PodStatus);
    /// Writes the last status and then deletes the object with grace 0.
    fn finish<'a>(&'a self, pod: &'a Arc<Pod>, status: PodStatus) -> BoxFuture<'a, Result<(), Error>>;
    fn event(&self, about: ObjectReference, warning: bool, reason: &str, message: String);
}
