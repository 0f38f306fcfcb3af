//! The admission chain: who may change or refuse an object between its decoding and its storing.
//!
//! Plugins are rows of one const table, run in its order: all that mutate, then (after hooks and validation) all that
//! only look. What a plugin wants to know of other objects it reads from `server.store`.

mod certificates;
mod default_ingress_class;
mod default_tolerations;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod runtime_class;
mod service_account;
mod storage;

pub(crate) use limit_ranger::{total as pod_total, whole as pod_whole};

use crate::authz::escalation;
use crate::call::Notices;
use crate::{ApiServer, Call, UserInfo};
use futures::future::BoxFuture;
use mini_api::{Status, Value};
use mini_resources::Resource;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What is to be admitted.
pub struct Request<'a> {
    pub operation: Operation,
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a UserInfo,
    /// The new object; on Delete and Connect the options, or null.
    pub object: &'a mut Value,
    /// The stored object, on Update and Delete.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    pub server: &'a ApiServer,
    /// What the client is to be warned of.
    pub(crate) notices: &'a Notices,
}

impl<'a> Request<'a> {
    /// About the object itself; what else there is to say is filled in with struct update.
    pub(crate) fn new(call: &'a Call, operation: Operation, name: &'a str, object: &'a mut Value) -> Self {
        Self {
            operation,
            resource: &call.resource,
            subresource: "",
            namespace: &call.info.namespace,
            name,
            user: &call.user,
            object,
            old: None,
            dry_run: false,
            server: &call.server,
            notices: &call.notices,
        }
    }
}

/// A plugin's function. Most read only memory and answer at once.
pub enum Hook {
    Sync(fn(&mut Request<'_>) -> Result<(), Status>),
    Async(for<'a, 'b> fn(&'a mut Request<'b>) -> BoxFuture<'a, Result<(), Status>>),
}

/// A row of the chain.
pub struct Plugin {
    /// Upstream's name.
    pub name: &'static str,
    pub mutate: Option<Hook>,
    pub validate: Option<Hook>,
}

/// The chain, in order.
pub const CHAIN: &[Plugin] = &[
    Plugin { name: "NamespaceLifecycle", mutate: Some(Hook::Sync(namespace_lifecycle::admit)), validate: None },
    Plugin {
        name: "LimitRanger",
        mutate: Some(Hook::Sync(limit_ranger::mutate)),
        validate: Some(Hook::Sync(limit_ranger::validate)),
    },
    Plugin {
        name: "ServiceAccount",
        mutate: Some(Hook::Async(service_account::mutate)),
        validate: Some(Hook::Sync(service_account::validate)),
    },
    Plugin { name: "NodeRestriction", mutate: None, validate: Some(Hook::Sync(node_restriction::validate)) },
    Plugin { name: "PodSecurity", mutate: None, validate: Some(Hook::Sync(pod_security::validate)) },
    Plugin { name: "Priority", mutate: Some(Hook::Sync(priority::mutate)), validate: None },
    Plugin {
        name: "RuntimeClass",
        mutate: Some(Hook::Sync(runtime_class::mutate)),
        validate: Some(Hook::Sync(runtime_class::validate)),
    },
    Plugin { name: "DefaultTolerationSeconds", mutate: Some(Hook::Sync(default_tolerations::mutate)), validate: None },
    Plugin { name: "DefaultStorageClass", mutate: Some(Hook::Sync(storage::default_class)), validate: None },
    Plugin { name: "StorageObjectInUseProtection", mutate: Some(Hook::Sync(storage::protect)), validate: None },
    Plugin { name: "PersistentVolumeClaimResize", mutate: None, validate: Some(Hook::Sync(storage::resize)) },
    Plugin { name: "DefaultIngressClass", mutate: Some(Hook::Sync(default_ingress_class::mutate)), validate: None },
    Plugin {
        name: "CertificateApproval",
        mutate: Some(Hook::Sync(certificates::mutate)),
        validate: Some(Hook::Sync(certificates::validate)),
    },
    Plugin { name: "RoleEscalation", mutate: None, validate: Some(Hook::Sync(escalation::validate)) },
];

/// Runs what may change the object.
pub(crate) async fn mutate(request: &mut Request<'_>) -> Result<(), Status> {
    for plugin in CHAIN {
        run(plugin.mutate.as_ref(), request).await?;
    }
    Ok(())
}

/// Runs what may only refuse it.
pub(crate) async fn validate(request: &mut Request<'_>) -> Result<(), Status> {
    for plugin in CHAIN {
        run(plugin.validate.as_ref(), request).await?;
    }
    Ok(())
}

async fn run(hook: Option<&Hook>, request: &mut Request<'_>) -> Result<(), Status> {
    match hook {
        None => Ok(()),
        Some(Hook::Sync(f)) => f(request),
        Some(Hook::Async(f)) => f(request).await,
    }
}
