//! What every cluster has: the system's namespaces, and the Service `kubernetes` that leads to this server.

use crate::managed_fields::Owners;
use crate::verbs::update::Write;
use crate::verbs::{create, update};
use crate::{ApiServer, Call, Error, authz, definitions, system_objects};
use base64::Engine as _;
use mini_api::{Meta, Status, Value};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// How often somebody's change of the system objects is undone.
const KEEP: Duration = Duration::from_secs(30);

/// Makes what is missing and corrects what differs.
///
/// # Errors
/// The store fails, or an object is refused.
pub(crate) async fn run(server: &Arc<ApiServer>, address: SocketAddr) -> Result<(), Error> {
    authz::bootstrap::reconcile(server).await?;
    // Custom kinds are served from the first request on.
    definitions::sync(server).await;
    system_objects::make(server).await?;
    ensure_all(server, address).await.map_err(Error::Bootstrap)?;
    introduce(server, address).await.map_err(Error::Bootstrap)?;
    server.booted.store(true, Ordering::Release);
    Ok(())
}

/// Keeps the objects as they are until `cancel`.
pub(crate) async fn keep(server: Arc<ApiServer>, address: SocketAddr, cancel: CancellationToken) {
    while cancel.run_until_cancelled(tokio::time::sleep(KEEP)).await.is_some() {
        if let Err(error) = ensure_all(&server, address).await {
            tracing::warn!(%error, "cannot keep the system objects");
        }
        if let Err(error) = system_objects::keep(&server).await {
            tracing::warn!(%error, "cannot keep the objects that say what is served");
        }
    }
}

async fn ensure_all(server: &Arc<ApiServer>, address: SocketAddr) -> Result<(), Status> {
    for name in NAMESPACES {
        ensure(server, "", "namespaces", "", name, &json!({"metadata": {"name": name}})).await?;
    }
    let advertise = SocketAddr::new(server.config.advertise, address.port());
    let first = std::net::Ipv4Addr::from(u32::from(server.config.service_cidr.network()).saturating_add(1)).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": first, "clusterIPs": [first], "sessionAffinity": "None",
                 "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                 "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": advertise.port()}]}});
    ensure(server, "", "services", "default", "kubernetes", &service).await?;
    if advertise.ip().is_loopback() {
        // No pod can reach it, and no endpoint may say otherwise.
        return Ok(());
    }
    let port = json!({"name": "https", "port": advertise.port(), "protocol": "TCP"});
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": advertise.ip().to_string()}], "ports": [port]}]});
    ensure(server, "", "endpoints", "default", "kubernetes", &endpoints).await?;
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if advertise.is_ipv4() { "IPv4" } else { "IPv6" }, "ports": [port],
        "endpoints": [{"addresses": [advertise.ip().to_string()], "conditions": {"ready": true}}]});
    ensure(server, "discovery.k8s.io", "endpointslices", "default", "kubernetes", &slice).await
}

/// Tells anybody how to reach this server, and whose certificates to believe. Bootstrap tokens sign it.
async fn introduce(server: &Arc<ApiServer>, address: SocketAddr) -> Result<(), Status> {
    let ca = tokio::fs::read(&server.config.client_ca).await.map_err(Status::internal)?;
    let at = SocketAddr::new(server.config.advertise, address.port());
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{at}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n",
        base64::engine::general_purpose::STANDARD.encode(ca)
    );
    let map =
        json!({"metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": kubeconfig}});
    ensure(server, "", "configmaps", "kube-public", "cluster-info", &map).await
}

/// A call of the server's own.
pub(crate) fn internal_call(
    server: &Arc<ApiServer>,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Call, Status> {
    let resource =
        server.registry.get(group, "v1", plural).ok_or_else(|| Status::internal(format!("no row {plural}")))?;
    let mut call = Call::internal(server, resource);
    namespace.clone_into(&mut call.info.namespace);
    name.clone_into(&mut call.info.name);
    Ok(call)
}

/// Makes the object, or merges `wanted` into the one that is there.
pub(crate) async fn ensure(
    server: &Arc<ApiServer>,
    group: &str,
    plural: &str,
    namespace: &str,
    name: &str,
    wanted: &Value,
) -> Result<(), Status> {
    let call = internal_call(server, group, plural, namespace, name)?;
    let mut wanted = wanted.clone();
    wanted["apiVersion"] = call.resource.api_version().into();
    wanted["kind"] = call.resource.kind.clone().into();
    if server.store.snapshot().get(&call.key(name)).is_none() {
        return match create::object(&call, wanted, false, Owners::Update("")).await {
            Err(status) if status.code == 409 => Ok(()),
            other => other.map(drop),
        };
    }
    let change = |old: &Value| {
        let mut new = old.clone();
        if !old.is_deleting() {
            mini_api::patch::merge::apply(&mut new, wanted.clone());
        }
        Ok((new, Vec::new()))
    };
    update::change_object(&call, Write::new("", false), change).await.map(drop)
}
