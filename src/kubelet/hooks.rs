//! Lifecycle hooks and the ending of containers.

use crate::agent::Shared;
use crate::pod::{self, observed::Seen};
use crate::prober::request;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::{Duration, Instant};

/// The least a container gets between SIGTERM and SIGKILL, seconds.
const GRACE_MIN: i64 = 2;

/// Runs a postStart or preStop handler; the error is the message of its event.
pub(crate) async fn run(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ips: &[String],
    handler: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer =
            shared.runtime.exec_sync(id, command.clone(), Duration::ZERO).await.map_err(|s| s.message().to_owned())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
        return Err(format!(
            "Exec lifecycle hook ({command:?}) for Container \"{}\" in Pod \"{}\" failed - error: command '{}' exited with {}: {output}, message: \"{output}\"",
            container.name,
            pod::full_name(pod),
            command.join(" "),
            answer.exit_code,
        ));
    }
    if let Some(get) = &handler.http_get {
        let target = request::Target::http(shared, pod, container, pod_ips, get)?;
        return match target.get(Duration::from_secs(30)).await {
            Ok((status, _)) if status < 400 => Ok(()),
            Ok((status, _)) => Err(format!("HTTP lifecycle hook failed with statuscode: {status}")),
            Err(e) => Err(format!("HTTP lifecycle hook failed: {e}")),
        };
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("invalid handler: neither exec, httpGet nor sleep".to_owned())
}

/// Ends a running container: preStop, SIGTERM, and SIGKILL when `grace` seconds are over.
pub(crate) async fn kill(shared: &Shared, pod: &Pod, seen: &Seen, pod_ips: &[String], why: &str, grace: i64) {
    let begun = Instant::now();
    let message = if why.is_empty() { format!("Stopping container {}", seen.name) } else { why.to_owned() };
    shared.event(pod, Some(&seen.name), false, "Killing", message);
    let mut left = grace;
    if let Some(container) = pod::find_container(pod, &seen.name)
        && let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
        && grace > 0
    {
        let patience = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        match tokio::time::timeout(patience, run(shared, pod, container, &seen.id, pod_ips, hook)).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                shared.event(
                    pod,
                    Some(&seen.name),
                    true,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {message}"),
                );
            }
            Err(_) => tracing::debug!(container = seen.name, "preStop used up the grace period"),
        }
        let used = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        left = (grace - used).max(GRACE_MIN);
    }
    if let Err(status) = shared.runtime.stop_container(&seen.id, left).await {
        tracing::warn!(container = seen.name, error = status.message(), "container does not stop");
    }
}
