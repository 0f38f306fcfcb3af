//! Hooks of the kinds that differ from the generic rules of `resource.rs`; one file for each kind or family.

pub(crate) mod batch;
pub(crate) mod config;
pub(crate) mod daemons;
pub(crate) mod deployment;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod ingress;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod namespace;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod others;
pub(crate) mod pod;
pub(crate) mod rbac;
pub(crate) mod replicas;
pub(crate) mod service;
pub(crate) mod service_account;
pub(crate) mod storage;
pub(crate) mod template;
pub(crate) mod volume;

#[cfg(test)]
mod tests;
