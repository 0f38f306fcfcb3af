//! The size of any kind that has one, through its `scale` subresource.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::driver::{code, message};
use crate::served;

/// A target as it is now.
pub(super) struct Scale {
    path: String,
    pub(super) replicas: i32,
    /// Its pods, as `?labelSelector=` has it.
    pub(super) selector: String,
}

pub(super) async fn get(client: &Client, path: &str) -> Result<Value, kube::Error> {
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// What may stand in a query.
pub(super) fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(super) async fn read(client: &Client, hpa: &HorizontalPodAutoscaler) -> Result<Scale, String> {
    let target = &hpa.spec.scale_target_ref;
    let version = target.api_version.as_deref().unwrap_or("v1");
    let namespace = hpa.metadata.namespace.as_deref().unwrap_or_default();
    let kind = served_kind(client, version, &target.kind).await?;
    let path = path(&kind, namespace, &target.name);
    let scale = get(client, &path).await.map_err(|error| message(&error))?;
    let selector = scale["status"]["selector"].as_str().unwrap_or_default().to_owned();
    if selector.is_empty() {
        return Err("selector is required".to_owned());
    }
    Ok(Scale { path, replicas: replicas(&scale), selector })
}

/// The size of an object; `None` if it is not there.
pub(crate) async fn size(
    client: &Client,
    namespace: &str,
    (api_version, kind, name): (&str, &str, &str),
) -> Result<Option<i32>, String> {
    let kind = served_kind(client, api_version, kind).await?;
    let path = path(&kind, namespace, name);
    match get(client, &path).await {
        Ok(scale) => Ok(Some(replicas(&scale))),
        Err(error) if matches!(code(&error), 404 | 405) => match get(client, path.trim_end_matches("/scale")).await {
            Err(error) if code(&error) == 404 => Ok(None),
            Err(error) => Err(message(&error)),
            Ok(_) => {
                let (plural, group) = (&kind.plural, &kind.group);
                let dot = if group.is_empty() { "" } else { "." };
                Err(format!("{plural}{dot}{group} does not implement the scale subresource"))
            }
        },
        Err(error) => Err(message(&error)),
    }
}

async fn served_kind(client: &Client, api_version: &str, kind: &str) -> Result<ApiResource, String> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let (kinds, _) = served::discover(client).await.map_err(|error| message(&error))?;
    let found = kinds.into_iter().find(|served| served.resource.kind == kind && served.resource.group == group);
    found.map(|served| served.resource).ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
}

fn path(kind: &ApiResource, namespace: &str, name: &str) -> String {
    let ApiResource { group, version, plural, .. } = kind;
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    format!("{root}/{version}/namespaces/{namespace}/{plural}/{name}/scale")
}

fn replicas(scale: &Value) -> i32 {
    scale["spec"]["replicas"].as_i64().and_then(|count| i32::try_from(count).ok()).unwrap_or_default()
}

impl Scale {
    pub(super) async fn write(&mut self, client: &Client, replicas: i32) -> Result<(), String> {
        let body = json!({"spec": {"replicas": replicas}}).to_string().into_bytes();
        let request =
            http::Request::patch(&self.path).header("content-type", "application/merge-patch+json").body(body);
        let request = request.map_err(|error| error.to_string())?;
        client.request::<Value>(request).await.map_err(|error| message(&error))?;
        self.replicas = replicas;
        Ok(())
    }
}
