//! Having the image of a container: pull policy, credentials, back-off, and upstream's events.

use super::reference;
use crate::agent::Shared;
use crate::pod::{self, backoff::BackOff, container::Waiting};
use base64::Engine;
use k8s_cri::v1::{AuthConfig, Image, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What is remembered between pulls.
#[derive(Default)]
pub(crate) struct Puller {
    back_off: Mutex<BackOff>,
    /// The error of the last pull, for the message while backing off.
    errors: Mutex<HashMap<String, String>>,
    /// One pull of an image at a time; those who wait for it find it present.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    pub(crate) fn forget(&self, uid: &str) {
        self.back_off.lock().forget(uid);
        self.errors.lock().retain(|key, _| !key.starts_with(uid));
    }

    fn turn(&self, image: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(busy.entry(image.to_owned()).or_default())
    }
}

fn waiting(reason: &'static str, message: String, retry: Option<Instant>) -> Waiting {
    Waiting { reason, message, retry }
}

/// The image of `container`, pulled if its policy asks for it.
pub(crate) async fn ensure(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    sandbox_config: &PodSandboxConfig,
) -> Result<Image, Waiting> {
    let asked = container.image.as_deref().unwrap_or_default();
    let event = |warning, reason: &str, message: String| {
        shared.event(pod, Some(&container.name), warning, reason, message);
    };
    let Some(name) = reference::with_default_tag(asked) else {
        let message = format!(
            "Failed to apply default image tag \"{asked}\": couldn't parse image name \"{asked}\": invalid reference format"
        );
        event(true, "InspectFailed", message.clone());
        event(true, "Failed", "Error: InvalidImageName".to_owned());
        return Err(waiting("InvalidImageName", message, Some(shared.retry_at())));
    };
    let inspect = || async {
        shared.runtime.image(&name).await.map_err(|status| {
            let message = format!("Failed to inspect image \"{asked}\": {}", status.message());
            event(true, "InspectFailed", message.clone());
            waiting("ImageInspectError", message, Some(shared.retry_at()))
        })
    };
    let policy = match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if name.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    };
    let present = |image: Image| {
        event(false, "Pulled", format!("Container image \"{asked}\" already present on machine"));
        Ok(image)
    };
    if policy != "Always" {
        match inspect().await? {
            Some(image) => return present(image),
            None if policy == "Never" => {
                let message = format!("Container image \"{asked}\" is not present with pull policy of Never");
                event(true, "ErrImageNeverPull", message.clone());
                event(true, "Failed", "Error: ErrImageNeverPull".to_owned());
                return Err(waiting("ErrImageNeverPull", message, Some(shared.retry_at())));
            }
            None => {}
        }
    }
    let key = format!("{}_{asked}", pod::uid(pod));
    if let Some(left) = shared.puller.back_off.lock().since_failure(&key, Instant::now()) {
        let last = shared.puller.errors.lock().get(&key).cloned().unwrap_or_default();
        event(false, "BackOff", format!("Back-off pulling image \"{asked}\""));
        event(true, "Failed", "Error: ImagePullBackOff".to_owned());
        let message = format!("Back-off pulling image \"{asked}\": ErrImagePull: {last}");
        return Err(waiting("ImagePullBackOff", message, Some(Instant::now() + left)));
    }
    let turn = shared.puller.turn(&name);
    let asked_at = Instant::now();
    let _turn = turn.lock().await;
    if policy != "Always"
        && let Some(image) = inspect().await?
    {
        return present(image);
    }
    event(false, "Pulling", format!("Pulling image \"{asked}\""));
    let begun = Instant::now();
    match pull(shared, pod, &name, sandbox_config).await {
        Ok(()) => {
            let image = inspect().await?.ok_or_else(|| {
                waiting("ErrImagePull", format!("{asked} is gone after its pull"), Some(shared.retry_at()))
            })?;
            event(
                false,
                "Pulled",
                format!(
                    "Successfully pulled image \"{asked}\" in {} ({} including waiting). Image size: {} bytes.",
                    mini_api::go::duration(begun.elapsed()),
                    mini_api::go::duration(asked_at.elapsed()),
                    image.size
                ),
            );
            shared.puller.back_off.lock().forget(&key);
            Ok(image)
        }
        Err(error) => {
            event(true, "Failed", format!("Failed to pull image \"{asked}\": {error}"));
            event(true, "Failed", "Error: ErrImagePull".to_owned());
            let now = Instant::now();
            let mut back_off = shared.puller.back_off.lock();
            back_off.failed(&key, now, now);
            let left = back_off.since_failure(&key, now);
            shared.puller.errors.lock().insert(key, error.clone());
            // The next look, at once, finds the back-off and says so.
            let soon = left.map(|_| now + std::time::Duration::from_secs(1));
            Err(waiting("ErrImagePull", error, soon))
        }
    }
}

async fn pull(shared: &Shared, pod: &Pod, name: &str, sandbox_config: &PodSandboxConfig) -> Result<(), String> {
    let mut tried: Vec<Option<AuthConfig>> = credentials(shared, pod, name).await.into_iter().map(Some).collect();
    if tried.is_empty() {
        tried.push(None);
    }
    let mut last = String::new();
    for auth in tried {
        match shared.runtime.pull(name, auth, Some(sandbox_config.clone())).await {
            Ok(_) => return Ok(()),
            Err(status) => last = status.message().to_owned(),
        }
    }
    Err(last)
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Clone, Default, serde::Deserialize)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// The pull secrets' credentials that fit the image's registry, the longest path first.
async fn credentials(shared: &Shared, pod: &Pod, name: &str) -> Vec<AuthConfig> {
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    let secrets = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
    for secret in secrets {
        let secret = match shared.cluster.secret(pod::namespace(pod), &secret.name).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::debug!(pod = pod::full_name(pod), %error, "pull secret not read");
                continue;
            }
        };
        let data = secret.data.unwrap_or_default();
        let config = if let Some(new) = data.get(".dockerconfigjson") {
            serde_json::from_slice::<DockerConfig>(&new.0).unwrap_or_default()
        } else if let Some(old) = data.get(".dockercfg") {
            DockerConfig { auths: serde_json::from_slice(&old.0).unwrap_or_default() }
        } else {
            continue;
        };
        for (server, auth) in config.auths {
            if let Some(length) = fits(&server, name) {
                found.push((length, auth_config(auth)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// The length of the match when `server`, as docker writes it, is where `image` comes from.
fn fits(server: &str, image: &str) -> Option<usize> {
    let (domain, path) = reference::registry(image)?;
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, prefix) = server.split_once('/').unwrap_or((server, ""));
    let hub = |h: &str| matches!(h, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let same_host = host == domain
        || (hub(host) && hub(&domain))
        || host.strip_prefix("*.").is_some_and(|rest| domain.split_once('.').is_some_and(|(_, d)| d == rest));
    if !same_host {
        return None;
    }
    let prefix = if matches!(prefix, "v1" | "v2") { "" } else { prefix };
    let inside = prefix.is_empty() || path == prefix || path.starts_with(&format!("{prefix}/"));
    inside.then_some(prefix.len())
}

/// Without the server: that it fits is settled, and containerd reads the field as a URL, which `host:port` is not.
fn auth_config(auth: DockerAuth) -> AuthConfig {
    let mut out = AuthConfig {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        ..Default::default()
    };
    if out.username.is_empty()
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim())
        && let Some((user, password)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        (out.username, out.password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_fit_their_registry() {
        assert_eq!(fits("https://index.docker.io/v1/", "busybox"), Some(0));
        assert_eq!(fits("127.0.0.1:5000", "127.0.0.1:5000/x:1"), Some(0));
        assert_eq!(fits("r.io/team", "r.io/team/x"), Some(4));
        assert_eq!(fits("r.io/team", "r.io/other/x"), None);
        assert_eq!(fits("*.r.io", "a.r.io/x"), Some(0));
        assert_eq!(fits("r.io", "s.io/x"), None);
    }
}
