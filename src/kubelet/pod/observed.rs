//! What containerd has of one pod, read through CRI.

use crate::labels;
use crate::runtime::Runtime;
use k8s_cri::v1::{ContainerState, PodSandboxState};
use std::collections::HashMap;
use tonic::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    /// Not only dead: its network is taken down too.
    pub(crate) stopped: bool,
    pub(crate) created_at: i64,
    /// Empty for a pod on the host's network.
    pub(crate) ips: Vec<String>,
}

/// One container, dead or alive. Times are nanoseconds of the Unix clock, 0 for never.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) name: String,
    /// The restart count.
    pub(crate) attempt: u32,
    pub(crate) state: State,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) hash: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// Newest first.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub(crate) containers: Vec<Seen>,
}

impl Observed {
    /// Everything containerd has of the pod `uid`. What is known to have ended is taken from `known` and not asked again.
    pub(crate) async fn read(runtime: &Runtime, uid: &str, known: &Self) -> Result<Self, Status> {
        let (sandboxes, containers) =
            tokio::try_join!(runtime.sandboxes(labels::of_uid(uid)), runtime.containers(labels::of_uid(uid)))?;
        let mut out = Self::default();
        for s in sandboxes {
            let ready = s.state == i32::from(PodSandboxState::SandboxReady);
            let old = known.sandboxes.iter().find(|k| k.id == s.id);
            let ips = match old {
                Some(old) if !old.ips.is_empty() || !ready => old.ips.clone(),
                _ => match sandbox_ips(runtime, &s.id).await {
                    Ok(ips) => ips,
                    Err(status) if status.code() == tonic::Code::NotFound => continue,
                    Err(status) => return Err(status),
                },
            };
            let attempt = s.metadata.as_ref().map_or(0, |m| m.attempt);
            let stopped = !ready && old.is_some_and(|old| old.stopped);
            out.sandboxes.push(Sandbox { id: s.id, attempt, ready, stopped, created_at: s.created_at, ips });
        }
        for c in containers {
            let old = known.containers.iter().find(|k| k.id == c.id && k.state == State::Exited);
            match old {
                Some(old) => out.containers.push(old.clone()),
                None => match Seen::read(runtime, &c.id).await {
                    Ok(mut seen) => {
                        seen.sandbox = c.pod_sandbox_id;
                        out.containers.push(seen);
                    }
                    Err(status) if status.code() == tonic::Code::NotFound => {}
                    Err(status) => return Err(status),
                },
            }
        }
        out.sort();
        Ok(out)
    }

    pub(crate) fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.attempt, c.created_at)));
    }

    /// The newest sandbox, if it runs.
    pub(crate) fn live_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest container of a name, in whatever sandbox.
    pub(crate) fn latest(&self, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub(crate) fn latest_in(&self, sandbox: &str, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|c| c.name == name && c.sandbox == sandbox)
    }

    /// The newest dead container of a name that is not `except`.
    pub(crate) fn previous(&self, name: &str, except: &str) -> Option<&Seen> {
        self.containers.iter().find(|c| c.name == name && c.id != except && c.state == State::Exited)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Seen> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Seen> {
        self.containers.iter().find(|c| c.id == id)
    }

    pub(crate) fn put(&mut self, seen: Seen) {
        self.containers.retain(|c| c.id != seen.id);
        self.containers.push(seen);
        self.sort();
    }
}

pub(crate) async fn sandbox_ips(runtime: &Runtime, id: &str) -> Result<Vec<String>, Status> {
    let network = runtime.sandbox_status(id).await?.network.unwrap_or_default();
    let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
    Ok(all.filter(|ip| !ip.is_empty()).collect())
}

impl Seen {
    pub(crate) async fn read(runtime: &Runtime, id: &str) -> Result<Self, Status> {
        let status = runtime.container_status(id).await?;
        let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
        let state = match ContainerState::try_from(status.state) {
            Ok(ContainerState::ContainerCreated) => State::Created,
            Ok(ContainerState::ContainerRunning) => State::Running,
            Ok(ContainerState::ContainerExited) => State::Exited,
            _ => State::Unknown,
        };
        let message = match state {
            State::Exited => crate::pod::container::termination_message(&status),
            _ => status.message.clone(),
        };
        Ok(Self {
            hash: annotation(labels::HASH),
            attempt: annotation(labels::RESTART_COUNT)
                .parse()
                .unwrap_or_else(|_| status.metadata.as_ref().map_or(0, |m| m.attempt)),
            name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
            sandbox: String::new(),
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason,
            message,
            image: status.image.map(|i| i.image).unwrap_or_default(),
            image_id: status.image_ref,
            id: status.id,
        })
    }
}

/// Groups what containerd has by pod UID: the start of the adoption after a restart.
pub(crate) async fn uids(runtime: &Runtime) -> Result<HashMap<String, Vec<String>>, Status> {
    let mut out: HashMap<String, Vec<String>> = HashMap::new();
    for sandbox in runtime.sandboxes(HashMap::new()).await? {
        if let Some(uid) = sandbox.labels.get(labels::POD_UID) {
            out.entry(uid.clone()).or_default().push(sandbox.id);
        }
    }
    Ok(out)
}
