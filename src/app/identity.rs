//! Who each component is to the API server: upstream's names, so that upstream's bootstrap roles fit.

use mini_apiserver::{ApiServer, UserInfo};
use std::sync::Arc;

/// A client for a component, in-process, through every filter from just after authentication.
pub(crate) fn client(server: &Arc<ApiServer>, user: &str, groups: &[&str]) -> kube::Client {
    kube::Client::new(server.local(UserInfo::new(user, groups)), "default")
}

/// For the kubelet of a node.
pub(crate) fn kubelet(server: &Arc<ApiServer>, node: &str) -> kube::Client {
    client(server, &format!("system:node:{node}"), &["system:nodes"])
}

pub(crate) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(crate) const SCHEDULER: &str = "system:kube-scheduler";
/// Addons bring roles and whatever else, so their engine may do everything.
pub(crate) const ADDONS: (&str, &[&str]) = ("system:mini:addons", &["system:masters"]);
