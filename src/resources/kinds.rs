//! Hooks of the kinds that differ from the generic rules of `resource.rs`; one file for each kind or family.

pub(crate) mod api_service;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificate;
pub(crate) mod config;
pub(crate) mod crd;
pub(crate) mod daemons;
pub(crate) mod deployment;
pub(crate) mod device;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod flow;
pub(crate) mod ingress;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod namespace;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod others;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod quota;
pub(crate) mod rbac;
pub(crate) mod replicas;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod service_range;
pub(crate) mod storage;
pub(crate) mod template;
pub(crate) mod volume;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;
