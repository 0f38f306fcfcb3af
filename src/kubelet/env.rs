//! The environment of a container, and `$(VAR)` in its command and arguments.

pub(crate) mod expand;
pub(crate) mod fields;
mod services;

use crate::Config;
use crate::cluster::{Cluster, Reference};
use crate::pod;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};
use std::collections::BTreeSet;

/// Variables in order; a later one of the same name takes the place of the earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Env(Vec<(String, String)>);

impl Env {
    pub(crate) fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(slot) => slot.1 = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub(crate) fn expand(&self, text: &str) -> String {
        expand::expand(text, |name| self.get(name).map(str::to_owned))
    }
}

/// What the environment of `container` refers to.
pub(crate) fn references(pod: &Pod, container: &Container) -> BTreeSet<Reference> {
    let namespace = pod::namespace(pod);
    let config_map = |name: &str| Reference::ConfigMap { namespace: namespace.to_owned(), name: name.to_owned() };
    let secret = |name: &str| Reference::Secret { namespace: namespace.to_owned(), name: name.to_owned() };
    let mut out = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        out.extend(from.config_map_ref.iter().map(|r| config_map(&r.name)));
        out.extend(from.secret_ref.iter().map(|r| secret(&r.name)));
    }
    for source in container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
        out.extend(source.config_map_key_ref.iter().map(|r| config_map(&r.name)));
        out.extend(source.secret_key_ref.iter().map(|r| secret(&r.name)));
    }
    out
}

/// The container's environment; the error is the message of a `CreateContainerConfigError`.
pub(crate) async fn of_container(
    cluster: &dyn Cluster,
    config: &Config,
    pod: &Pod,
    container: &Container,
    pod_ips: &[String],
) -> Result<Env, String> {
    let namespace = pod::namespace(pod);
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let service_env = services::environment(&cluster.services().await, namespace, links);
    let mut env = Env::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut add = |name: &str, value: String| {
            if !name.is_empty() && !name.contains('=') {
                env.set(&format!("{prefix}{name}"), value);
            }
        };
        if let Some(source) = &from.config_map_ref {
            match cluster.config_map(namespace, &source.name).await {
                Ok(found) => found.data.unwrap_or_default().into_iter().for_each(|(k, v)| add(&k, v)),
                Err(e) if e.is_not_found() && source.optional == Some(true) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        if let Some(source) = &from.secret_ref {
            match cluster.secret(namespace, &source.name).await {
                Ok(found) => found
                    .data
                    .unwrap_or_default()
                    .into_iter()
                    .for_each(|(k, v)| add(&k, String::from_utf8_lossy(&v.0).into_owned())),
                Err(e) if e.is_not_found() && source.optional == Some(true) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => {
                let raw = variable.value.as_deref().unwrap_or_default();
                Some(expand::expand(raw, |name| env.get(name).or_else(|| service_env.get(name)).map(str::to_owned)))
            }
            Some(source) => from_source(cluster, config, pod, container, source, pod_ips).await?,
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    for (name, value) in service_env.iter() {
        if env.get(name).is_none() {
            env.set(name, value.to_owned());
        }
    }
    Ok(env)
}

async fn from_source(
    cluster: &dyn Cluster,
    config: &Config,
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    pod_ips: &[String],
) -> Result<Option<String>, String> {
    let namespace = pod::namespace(pod);
    if let Some(field) = &source.field_ref {
        return fields::of_pod(pod, &field.field_path, pod_ips, config).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields::of_resource(pod, container, resource).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        return match cluster.config_map(namespace, &key.name).await {
            Ok(found) => match found.data.and_then(|mut d| d.remove(&key.key)) {
                Some(value) => Ok(Some(value)),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
            },
            Err(e) if e.is_not_found() && optional => Ok(None),
            Err(e) => Err(e.to_string()),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        return match cluster.secret(namespace, &key.name).await {
            Ok(found) => match found.data.and_then(|mut d| d.remove(&key.key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
            },
            Err(e) if e.is_not_found() && optional => Ok(None),
            Err(e) => Err(e.to_string()),
        };
    }
    Ok(None)
}
