//! The files of configMap, secret, downwardAPI and projected volumes.

use super::Context;
use crate::cluster::TokenSpec;
use crate::env::fields;
use crate::pod;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Secret, ServiceAccountTokenProjection, Volume,
};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    pub(super) user: Option<u32>,
}

/// Files by relative path.
pub(super) type Files = BTreeMap<String, File>;

/// The plugin's name and the files; `None` when the volume is of another kind.
pub(super) async fn of_volume(context: &Context<'_>, volume: &Volume) -> Result<Option<(&'static str, Files)>, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let style = Style::new(source.default_mode, source.default_user);
        config_map(context, &source.name, source.items.as_deref(), source.optional, style, &mut files).await?;
        return Ok(Some(("configmap", files)));
    }
    if let Some(source) = &volume.secret {
        let style = Style::new(source.default_mode, source.default_user);
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(context, name, source.items.as_deref(), source.optional, style, &mut files).await?;
        return Ok(Some(("secret", files)));
    }
    if let Some(source) = &volume.downward_api {
        let style = Style::new(source.default_mode, source.default_user);
        downward(context, source.items.as_deref().unwrap_or_default(), style, &mut files)?;
        return Ok(Some(("downward-api", files)));
    }
    let Some(projected) = &volume.projected else { return Ok(None) };
    let style = Style::new(projected.default_mode, projected.default_user);
    for source in projected.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            config_map(context, &source.name, source.items.as_deref(), source.optional, style, &mut files).await?;
        }
        if let Some(source) = &source.secret {
            secret(context, &source.name, source.items.as_deref(), source.optional, style, &mut files).await?;
        }
        if let Some(source) = &source.downward_api {
            downward(context, source.items.as_deref().unwrap_or_default(), style, &mut files)?;
        }
        if let Some(source) = &source.service_account_token {
            token(context, &volume.name, source, style, &mut files).await?;
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err("clusterTrustBundle and podCertificate projections are not supported".to_owned());
        }
    }
    Ok(Some(("projected", files)))
}

/// Mode and user of files that have none of their own.
#[derive(Clone, Copy)]
struct Style {
    mode: u32,
    user: Option<u32>,
}

impl Style {
    fn new(mode: Option<i32>, user: Option<i64>) -> Self {
        Self {
            mode: mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644),
            user: user.and_then(|u| u32::try_from(u).ok()),
        }
    }

    fn file(self, bytes: Vec<u8>, mode: Option<i32>, user: Option<i64>) -> File {
        File {
            bytes,
            mode: mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(self.mode),
            user: user.and_then(|u| u32::try_from(u).ok()).or(self.user),
        }
    }
}

async fn config_map(
    context: &Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    style: Style,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let found = match context.cluster.config_map(pod::namespace(context.pod), name).await {
        Ok(found) => found,
        Err(e) if e.is_not_found() && optional => ConfigMap::default(),
        Err(e) => return Err(e.to_string()),
    };
    let mut data: BTreeMap<String, Vec<u8>> =
        found.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())).collect();
    data.extend(found.binary_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)));
    select(data, items, optional, style, files, "configmap")
}

async fn secret(
    context: &Context<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    style: Style,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let found = match context.cluster.secret(pod::namespace(context.pod), name).await {
        Ok(found) => found,
        Err(e) if e.is_not_found() && optional => Secret::default(),
        Err(e) => return Err(e.to_string()),
    };
    let data = found.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    select(data, items, optional, style, files, "secret")
}

fn select(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    style: Style,
    files: &mut Files,
    what: &str,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        files.extend(data.into_iter().map(|(key, bytes)| (key, style.file(bytes, None, None))));
        return Ok(());
    };
    for item in items {
        match data.get_mut(&item.key) {
            Some(bytes) => {
                files.insert(clean(&item.path)?, style.file(bytes.clone(), item.mode, item.user));
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    context: &Context<'_>,
    items: &[DownwardAPIVolumeFile],
    style: Style,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let value = if let Some(field) = &item.field_ref {
            fields::of_pod(context.pod, &field.field_path, context.pod_ips, context.config)?
        } else if let Some(resource) = &item.resource_field_ref {
            fields::of_resource(context.pod, &Container::default(), resource)?
        } else {
            continue;
        };
        files.insert(clean(&item.path)?, style.file(value.into_bytes(), item.mode, item.user));
    }
    Ok(())
}

async fn token(
    context: &Context<'_>,
    volume: &str,
    source: &ServiceAccountTokenProjection,
    style: Style,
    files: &mut Files,
) -> Result<(), String> {
    let spec = context.pod.spec.as_ref();
    let account = spec.and_then(|s| s.service_account_name.as_deref()).filter(|a| !a.is_empty());
    let request = TokenSpec {
        audience: source.audience.clone().filter(|a| !a.is_empty()),
        expiration_seconds: source.expiration_seconds.unwrap_or(3600),
        pod_name: pod::name(context.pod).to_owned(),
        pod_uid: pod::uid(context.pod).to_owned(),
    };
    let ask = context.cluster.token(pod::namespace(context.pod), account.unwrap_or("default"), request);
    let token =
        context.tokens.get(volume, &source.path, ask).await.map_err(|e| format!("failed to fetch token: {e}"))?;
    let (mode, user) = token_owner(context, style.mode);
    let mut file = style.file(token.into_bytes(), mode, source.user);
    file.user = file.user.or(user);
    files.insert(clean(&source.path)?, file);
    Ok(())
}

/// A token is for the pod's user alone where all containers share one; `fsGroup` gives it to the group.
fn token_owner(context: &Context<'_>, default: u32) -> (Option<i32>, Option<u32>) {
    let spec = context.pod.spec.as_ref();
    let of_pod = spec.and_then(|s| s.security_context.as_ref());
    if of_pod.and_then(|c| c.fs_group).is_some() {
        return (Some(0o600), None);
    }
    let containers = pod::main_containers(context.pod).iter().chain(pod::init_containers(context.pod));
    let mut users = containers.map(|c| {
        c.security_context.as_ref().and_then(|s| s.run_as_user).or_else(|| of_pod.and_then(|s| s.run_as_user))
    });
    let first = users.next().flatten();
    match first {
        Some(user) if users.all(|u| u == first) => (Some(0o600), u32::try_from(user).ok()),
        _ => (i32::try_from(default).ok(), None),
    }
}

/// A relative path that stays inside.
fn clean(path: &str) -> Result<String, String> {
    let fine = !path.is_empty() && !path.starts_with('/') && path.split('/').all(|p| p != "..");
    if fine { Ok(path.trim_end_matches('/').to_owned()) } else { Err(format!("invalid path: {path}")) }
}
