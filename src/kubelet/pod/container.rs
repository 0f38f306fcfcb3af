//! Making and starting one container, and reading what it left as its last word.

use super::observed::{Sandbox, Seen};
use super::sandbox;
use crate::agent::Shared;
use crate::images::pull;
use crate::volumes::{Ready, mounts};
use crate::{env, hooks, labels, resources, security};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerStatus, ImageSpec, KeyValue, LinuxContainerConfig, PodSandboxConfig,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{Mode, OFlags, open};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

const MESSAGE_MAX: u64 = 4096;
const LOG_MESSAGE_MAX: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;

/// Why a container waits: the `reason` and `message` of its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// When trying again is worth it.
    pub(crate) retry: Option<Instant>,
}

pub(crate) struct Start<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) sandbox_config: &'a PodSandboxConfig,
    pub(crate) volumes: &'a HashMap<String, Ready>,
    pub(crate) attempt: u32,
    /// Told the id before the container runs, so that its end cannot be missed.
    pub(crate) created: &'a (dyn Fn(&str) + Sync),
}

/// Pulls what must be pulled, creates and starts. The container is running, and its postStart hook done, on `Ok`.
pub(crate) async fn start(shared: &Shared, job: &Start<'_>) -> Result<Seen, Waiting> {
    let (pod, container) = (job.pod, job.container);
    let image = pull::ensure(shared, pod, container, job.sandbox_config).await?;
    let uid = image.uid.as_ref().map(|u| u.value);
    if let Some(message) = security::non_root_violation(pod, container, uid, &image.username) {
        return Err(config_error(shared, job, message));
    }
    let ips = &job.sandbox.ips;
    let environment = env::of_container(&*shared.cluster, &shared.config, pod, container, ips)
        .await
        .map_err(|message| config_error(shared, job, message))?;
    let mounts = mounts::of_container(&shared.config, pod, container, job.volumes, &environment, ips)
        .map_err(|message| config_error(shared, job, message))?;
    let log_dir = sandbox::log_dir(&shared.config, pod).join(&container.name);
    fs::create_dir_all(&log_dir)
        .map_err(|e| config_error(shared, job, format!("cannot make {}: {e}", log_dir.display())))?;
    let expand = |words: &Option<Vec<String>>| words.iter().flatten().map(|w| environment.expand(w)).collect();
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: job.attempt }),
        image: Some(ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.iter().map(|(k, v)| KeyValue { key: k.to_owned(), value: v.to_owned() }).collect(),
        mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, job.attempt),
        log_path: format!("{}/{}.log", container.name, job.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::of_container(pod, container, shared.node_memory)),
            security_context: Some(security::of_container(
                pod,
                container,
                (uid, &image.username),
                &shared.config.root_dir,
            )),
        }),
        ..Default::default()
    };
    let id = match shared.runtime.create_container(&job.sandbox.id, config, job.sandbox_config.clone()).await {
        Ok(id) => id,
        Err(status) => {
            let message = status.message().to_owned();
            shared.event(pod, Some(&container.name), true, "Failed", format!("Error: {message}"));
            return Err(Waiting { reason: "CreateContainerError", message, retry: Some(shared.retry_at()) });
        }
    };
    (job.created)(&id);
    shared.event(pod, Some(&container.name), false, "Created", format!("Created container: {}", container.name));
    if let Err(status) = shared.runtime.start_container(&id).await {
        let message = status.message().to_owned();
        shared.event(pod, Some(&container.name), true, "Failed", format!("Error: {message}"));
        return Err(Waiting { reason: "RunContainerError", message, retry: Some(Instant::now()) });
    }
    shared.event(pod, Some(&container.name), false, "Started", format!("Started container {}", container.name));
    let mut seen = read(shared, &id, &job.sandbox.id).await?;
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref())
        && let Err(message) = hooks::run(shared, pod, container, &id, ips, hook).await
    {
        shared.event(
            pod,
            Some(&container.name),
            true,
            "FailedPostStartHook",
            format!("PostStartHook failed: {message}"),
        );
        hooks::kill(shared, pod, &seen, ips, "FailedPostStartHook", super::grace(pod)).await;
        seen = read(shared, &id, &job.sandbox.id).await?;
    }
    Ok(seen)
}

async fn read(shared: &Shared, id: &str, sandbox: &str) -> Result<Seen, Waiting> {
    let mut seen = Seen::read(&shared.runtime, id).await.map_err(|status| Waiting {
        reason: "RunContainerError",
        message: status.message().to_owned(),
        retry: Some(Instant::now()),
    })?;
    sandbox.clone_into(&mut seen.sandbox);
    Ok(seen)
}

fn config_error(shared: &Shared, job: &Start<'_>, message: String) -> Waiting {
    shared.event(job.pod, Some(&job.container.name), true, "Failed", format!("Error: {message}"));
    Waiting { reason: "CreateContainerConfigError", message, retry: Some(shared.retry_at()) }
}

/// The termination message of an ended container: its file, else, where the policy says so, the end of its log.
pub(crate) fn termination_message(status: &ContainerStatus) -> String {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = annotation(labels::MESSAGE_PATH);
    let file = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    let mut message = file.map(|m| tail(Path::new(&m.host_path), MESSAGE_MAX)).unwrap_or_default();
    let fallback = annotation(labels::MESSAGE_POLICY) == "FallbackToLogsOnError";
    if message.is_empty() && fallback && status.exit_code != 0 && !status.log_path.is_empty() {
        message = last_words(Path::new(&status.log_path));
    }
    if message.is_empty() { status.message.clone() } else { message }
}

fn tail(path: &Path, max: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        // A pod may have put a pipe there, which would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = fs::File::from(open(path, flags, Mode::empty())?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Vec::new());
        }
        let len = meta.len();
        file.seek(SeekFrom::Start(len.saturating_sub(max)))?;
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last lines of a CRI log, without its prefixes.
fn last_words(path: &Path) -> String {
    let raw = tail(path, 64 << 10);
    let mut text = String::new();
    let lines: Vec<&str> = raw.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_MESSAGE_LINES)) {
        let mut fields = line.splitn(4, ' ');
        let (_, _, tag, content) = (fields.next(), fields.next(), fields.next(), fields.next());
        text.push_str(content.unwrap_or_default());
        if tag != Some("P") {
            text.push('\n');
        }
    }
    let max = usize::try_from(LOG_MESSAGE_MAX).unwrap_or(usize::MAX);
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_is_read_from_files_only() {
        let dir = std::env::temp_dir().join(format!("mini-message-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), "too long").unwrap();
        assert_eq!(tail(&dir.join("file"), 4), "long");
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("pipe"), Mode::RUSR).unwrap();
        assert_eq!(tail(&dir.join("pipe"), 4), "");
        assert_eq!(tail(&dir, 4), "");
        fs::remove_dir_all(&dir).unwrap();
    }
}
