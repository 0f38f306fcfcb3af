//! The worker of one pod: looks, plans, acts, reports, and sleeps until something wakes it.
//!
//! Invariant: a worker may be dropped at any await (a deletion does that); it then reads the pod anew from containerd.

use super::backoff::BackOff;
use super::container::{self, Waiting};
use super::observed::{Observed, Sandbox, Seen, State, sandbox_ips};
use super::plan::{Step, View, plan};
use super::status::{Facts, generate};
use super::{full_name, grace, is_finished, is_ready, sandbox, uid};
use crate::agent::{Shared, Wake, Woken};
use crate::prober::Prober;
use crate::volumes::{self, Ready, Tokens};
use crate::{cgroups, hooks, labels};
use jiff::Timestamp;
use k8s_cri::v1::PodSandboxConfig;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What is wanted of a pod.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) pod: Arc<Pod>,
    /// Not to run any more, though nobody deleted it yet.
    pub(crate) end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The object is gone from the API.
    Gone,
    /// The node stops; the object stays. At most so many seconds for each container.
    Drain(i64),
}

impl Order {
    pub(crate) fn ends(&self) -> bool {
        self.end.is_some() || self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// What a worker does after one look.
pub(super) enum Next {
    Done,
    Again,
    Sleep(Option<Instant>),
}

pub(crate) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) wake: Arc<Wake>,
    pub(super) observed: Observed,
    /// What is in `observed` may not be so any more.
    pub(super) stale: bool,
    /// Dropped while this holds, a worker cannot know how far it came.
    acting: bool,
    /// Containers and sandboxes whose end was announced and that have not been looked at.
    ended: Vec<String>,
    pub(super) prober: Prober,
    volumes: Option<HashMap<String, Ready>>,
    volumes_changed: bool,
    volume_retry: Option<(Instant, Duration)>,
    tokens: Tokens,
    back_off: BackOff,
    waiting: HashMap<String, Waiting>,
    recycled: HashSet<String>,
    start_time: Option<Timestamp>,
    pub(super) failed: Option<(String, String)>,
    pub(super) before: PodStatus,
    seen_pod: Option<Arc<Pod>>,
    pub(super) finished: bool,
    pub(super) settled: bool,
}

impl Worker {
    /// `adopted`: containerd may already have something of this pod. `refused`: it shall not run, with reason and message.
    pub(crate) fn new(
        shared: Arc<Shared>,
        orders: watch::Receiver<Order>,
        wake: Arc<Wake>,
        adopted: bool,
        refused: Option<(String, String)>,
    ) -> Self {
        let before = orders.borrow().pod.status.clone().unwrap_or_default();
        Self {
            prober: Prober::new(Arc::clone(&shared), Arc::clone(&wake)),
            shared,
            start_time: before.start_time.as_ref().map(|t| t.0),
            orders,
            wake,
            observed: Observed::default(),
            stale: adopted,
            acting: false,
            ended: Vec::new(),
            volumes: None,
            volumes_changed: false,
            volume_retry: None,
            tokens: Tokens::default(),
            back_off: BackOff::default(),
            waiting: HashMap::new(),
            recycled: HashSet::new(),
            failed: refused,
            before,
            seen_pod: None,
            finished: false,
            settled: false,
        }
    }

    /// Until the pod is gone.
    pub(crate) async fn run(mut self) {
        loop {
            let order = self.orders.borrow_and_update().clone();
            let next = if order.ends() {
                self.terminate(&order).await
            } else {
                let mut orders = self.orders.clone();
                // A deletion cuts short whatever goes on: a pull, a hook.
                tokio::select! {
                    next = self.sync(&order.pod) => next,
                    () = until_ending(&mut orders) => Next::Again,
                }
            };
            let deadline = match next {
                Next::Done => return,
                Next::Again => continue,
                Next::Sleep(deadline) => deadline,
            };
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() { return },
                () = self.wake.woken() => {}
                () = sleep => {}
            }
        }
    }

    async fn sync(&mut self, pod: &Arc<Pod>) -> Next {
        self.note_changes(pod);
        if let Err(status) = self.look().await {
            tracing::debug!(pod = full_name(pod), error = status.message(), "cannot read from containerd");
            return Next::Sleep(Some(Instant::now() + Duration::from_secs(1)));
        }
        self.acting = true;
        let deadline = self.act(pod).await;
        self.acting = false;
        self.report(pod);
        // What was announced and not seen is looked at again.
        let soon = self.stale.then(|| Instant::now() + Duration::from_secs(1));
        Next::Sleep(deadline.into_iter().chain(soon).min())
    }

    fn note_changes(&mut self, pod: &Arc<Pod>) {
        if self.start_time.is_none() {
            self.start_time = Timestamp::from_second(Timestamp::now().as_second()).ok();
        }
        match &self.seen_pod {
            None => {
                let references = volumes::references(pod);
                if !references.is_empty() {
                    self.shared.cluster.follow(uid(pod), references);
                }
                self.volumes_changed = true;
            }
            // The downward API shows labels and annotations.
            Some(old) => {
                self.volumes_changed |=
                    old.metadata.labels != pod.metadata.labels || old.metadata.annotations != pod.metadata.annotations;
            }
        }
        self.seen_pod = Some(Arc::clone(pod));
    }

    /// Brings `observed` up to date, at the least cost that will do.
    pub(super) async fn look(&mut self) -> Result<(), tonic::Status> {
        let Woken { relist, references, ended } = self.wake.take();
        self.volumes_changed |= references;
        // Remembered until it has been seen: containerd may be away, and a deletion may drop us at any await.
        self.stale |= relist || self.acting;
        self.ended.extend(ended);
        if self.stale {
            let order = self.orders.borrow().pod.clone();
            // After a restart of containerd all workers come at once.
            let _turn = self.shared.reads.acquire().await;
            self.observed = Observed::read(&self.shared.runtime, uid(&order), &self.observed).await?;
            self.stale = false;
            for container in &self.observed.containers {
                self.shared.directory.put(&container.id, &self.wake);
            }
            for sandbox in &self.observed.sandboxes {
                self.shared.directory.put(&sandbox.id, &self.wake);
            }
        }
        while let Some(id) = self.ended.last().cloned() {
            self.look_at_ended(&id).await;
            self.ended.pop();
        }
        Ok(())
    }

    /// containerd's event comes a little before CRI knows of it.
    async fn look_at_ended(&mut self, id: &str) {
        if let Some(at) = self.observed.sandboxes.iter().position(|s| s.id == id) {
            for pause in PAUSES {
                tokio::time::sleep(Duration::from_millis(*pause)).await;
                let ready = i32::from(k8s_cri::v1::PodSandboxState::SandboxReady);
                match self.shared.runtime.sandbox_status(id).await {
                    Ok(status) if status.state == ready => {}
                    _ => break,
                }
            }
            if let Some(sandbox) = self.observed.sandboxes.get_mut(at) {
                sandbox.ready = false;
            }
            self.stale = true;
            return;
        }
        let Some(known) = self.observed.get(id).filter(|c| c.state != State::Exited).cloned() else { return };
        for pause in PAUSES {
            tokio::time::sleep(Duration::from_millis(*pause)).await;
            match Seen::read(&self.shared.runtime, id).await {
                Ok(seen) if seen.state == State::Exited => {
                    self.observed.put(Seen { sandbox: known.sandbox, ..seen });
                    return;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.stale = true;
    }

    /// Does everything that can be done now; when to look again.
    async fn act(&mut self, pod: &Arc<Pod>) -> Option<Instant> {
        let deadline_left = self.deadline_left(pod);
        if deadline_left == Some(Duration::ZERO) && !self.settled {
            let message = "Pod was active on the node longer than the specified deadline";
            self.shared.event(pod, None, false, "DeadlineExceeded", message.to_owned());
            self.failed = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        }
        if self.failed.is_some() || is_finished(pod) || self.is_over(pod) {
            self.settle(pod).await;
            return None;
        }
        let mut wake_at: Option<Instant> = None;
        let mut sooner = |at: Option<Instant>| {
            wake_at = match (wake_at, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        self.volumes_changed |= self.tokens.due();
        // Live updates of volumes that are set up already.
        if self.volumes_changed
            && self.observed.running().next().is_some()
            && let Err(at) = self.set_up_volumes(pod).await
        {
            sooner(Some(at));
        }
        for _ in 0..64 {
            self.prober.follow(pod, &self.observed);
            let steps = {
                let findings = self.prober.findings();
                plan(&View {
                    pod,
                    observed: &self.observed,
                    started: &findings.started,
                    condemned: &findings.condemned,
                    recycled: &self.recycled,
                })
            };
            let mut progress = false;
            for step in steps {
                match self.take(pod, step).await {
                    Taken::Done => progress = true,
                    Taken::Later(at) => sooner(Some(at)),
                }
            }
            if !progress {
                break;
            }
            self.report(pod);
        }
        self.prober.follow(pod, &self.observed);
        if self.is_over(pod) {
            self.report(pod);
            self.settle(pod).await;
            return None;
        }
        sooner(self.tokens.next().map(|left| Instant::now() + left));
        sooner(deadline_left.map(|left| Instant::now() + left));
        wake_at
    }

    fn deadline_left(&self, pod: &Pod) -> Option<Duration> {
        let seconds = pod.spec.as_ref().and_then(|s| s.active_deadline_seconds)?;
        let used = Timestamp::now().duration_since(self.start_time?).as_secs();
        Some(Duration::from_secs(u64::try_from(seconds - used).unwrap_or(0)))
    }

    /// Whether the pod's containers have all ended for good.
    fn is_over(&self, pod: &Pod) -> bool {
        if self.settled {
            return true;
        }
        let findings = self.prober.findings();
        let status = generate(&self.facts(pod, &findings.started, &findings.ready, false));
        matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) && self.observed.running().next().is_none()
    }

    /// A finished pod keeps its containers (for their logs) but neither address nor mounts.
    async fn settle(&mut self, pod: &Arc<Pod>) {
        if self.settled {
            return;
        }
        self.prober.stop();
        let ips = self.observed.live_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let running: Vec<Seen> = self.observed.running().cloned().collect();
        let kills = running.iter().map(|seen| hooks::kill(&self.shared, pod, seen, &ips, "", grace(pod)));
        futures::future::join_all(kills).await;
        self.stale = true;
        let _ = self.look().await;
        self.report(pod);
        let mut stopped = true;
        for sandbox in self.observed.sandboxes.iter_mut().filter(|s| !s.stopped) {
            sandbox.stopped = self.shared.runtime.stop_sandbox(&sandbox.id).await.is_ok();
            stopped &= sandbox.stopped;
        }
        self.stale = true;
        let _ = self.look().await;
        self.shared.cluster.follow(uid(pod), Default::default());
        let dir = volumes::pod_dir(&self.shared.config, pod);
        if let Err(error) = volumes::tear_down::unmount_below(&dir).await {
            tracing::warn!(pod = full_name(pod), %error, "volumes not unmounted");
        }
        self.settled = stopped;
    }

    async fn take(&mut self, pod: &Arc<Pod>, step: Step) -> Taken {
        match step {
            Step::StopSandbox(id) => {
                if let Err(status) = self.shared.runtime.stop_sandbox(&id).await {
                    tracing::warn!(pod = full_name(pod), error = status.message(), "sandbox does not stop");
                    return Taken::Later(Instant::now() + Duration::from_secs(2));
                }
                self.stale = true;
                let _ = self.look().await;
                if let Some(sandbox) = self.observed.sandboxes.iter_mut().find(|s| s.id == id) {
                    sandbox.stopped = !sandbox.ready;
                }
                Taken::Done
            }
            Step::RunSandbox { attempt } => self.run_sandbox(pod, attempt).await,
            Step::Start { name, attempt, after } => self.start(pod, &name, attempt, after).await,
            Step::Kill { id, why, restart, .. } => {
                let Some(seen) = self.observed.get(&id).cloned() else { return Taken::Done };
                let ips = self.observed.live_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
                hooks::kill(&self.shared, pod, &seen, &ips, &why, self.kill_grace(pod, &seen)).await;
                if restart {
                    self.recycled.insert(id.clone());
                }
                self.look_at_ended(&id).await;
                Taken::Done
            }
        }
    }

    /// A probe may have a grace period of its own.
    fn kill_grace(&self, pod: &Pod, seen: &Seen) -> i64 {
        let findings = self.prober.findings();
        findings.condemned.get(&seen.id).and_then(|verdict| verdict.grace).unwrap_or_else(|| grace(pod))
    }

    async fn run_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> Taken {
        let shared = Arc::clone(&self.shared);
        if pod.spec.as_ref().and_then(|s| s.host_users) == Some(false) {
            let message =
                "Failed to create pod sandbox: the runtime does not support user namespaces (hostUsers: false)";
            shared.event(pod, None, true, "FailedCreatePodSandBox", message.to_owned());
            return Taken::Later(Instant::now() + NO_SANDBOX);
        }
        let config = sandbox::config(&shared.config, pod, attempt);
        let log_dir = sandbox::log_dir(&shared.config, pod);
        let pod_dir = volumes::pod_dir(&shared.config, pod);
        if let Err(e) = std::fs::create_dir_all(&log_dir).and_then(|()| std::fs::create_dir_all(&pod_dir)) {
            shared.event(pod, None, true, "FailedCreatePodContainer", format!("cannot make the pod's folders: {e}"));
            return Taken::Later(shared.retry_at());
        }
        cgroups::prepare(&shared.config.instance, pod);
        // Volumes are made while the sandbox is: neither waits for the other.
        let running = async {
            let id = shared.runtime.run_sandbox(config).await?;
            let ips = if super::host_network(pod) { Vec::new() } else { sandbox_ips(&shared.runtime, &id).await? };
            Ok::<_, tonic::Status>((id, ips))
        };
        let (ran, volumes) = tokio::join!(running, self.set_up_volumes(pod));
        match ran {
            Ok((id, ips)) => {
                shared.directory.put(&id, &self.wake);
                self.observed.sandboxes.push(Sandbox {
                    id,
                    attempt,
                    ready: true,
                    stopped: false,
                    created_at: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
                    ips,
                });
                self.observed.sort();
                match volumes {
                    Ok(()) => Taken::Done,
                    Err(at) => Taken::Later(at),
                }
            }
            Err(status) => {
                let message = format!("Failed to create pod sandbox: {}", status.message());
                shared.event(pod, None, true, "FailedCreatePodSandBox", message);
                self.stale = true;
                let _ = self.look().await;
                Taken::Later(Instant::now() + Duration::from_secs(2))
            }
        }
    }

    /// `Err` is when to try again; the event is sent.
    async fn set_up_volumes(&mut self, pod: &Arc<Pod>) -> Result<(), Instant> {
        let pod_ips = self.observed.live_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let context = volumes::Context {
            cluster: &*self.shared.cluster,
            config: &self.shared.config,
            pod,
            pod_ips: &pod_ips,
            tokens: &self.tokens,
        };
        match volumes::set_up(&context).await {
            Ok(ready) => {
                self.volumes = Some(ready);
                self.volumes_changed = false;
                self.volume_retry = None;
                Ok(())
            }
            Err(message) => {
                self.shared.event(pod, None, true, "FailedMount", message);
                let delay =
                    self.volume_retry.map_or(Duration::from_millis(500), |(_, d)| (d * 2).min(VOLUME_RETRY_MAX));
                let at = Instant::now() + delay;
                self.volume_retry = Some((at, delay));
                Err(at)
            }
        }
    }

    async fn start(&mut self, pod: &Arc<Pod>, name: &str, attempt: u32, after: Option<String>) -> Taken {
        let Some(container) = super::find_container(pod, name).cloned() else {
            return Taken::Later(self.shared.retry_at());
        };
        if self.volumes.is_none() || self.volumes_changed {
            let waits = self.volume_retry.map(|(at, _)| at).filter(|at| *at > Instant::now());
            if let Some(at) = waits.filter(|_| !self.volumes_changed) {
                return Taken::Later(at);
            }
            if let Err(at) = self.set_up_volumes(pod).await {
                return Taken::Later(at);
            }
        }
        let key = format!("{name} {}", labels::hash(&container));
        if let Some(ended) = after.as_deref().and_then(|id| self.observed.get(id)) {
            let now = Instant::now();
            let ago = Timestamp::now().as_nanosecond() - i128::from(ended.finished_at);
            let since = now.checked_sub(Duration::from_nanos(u64::try_from(ago).unwrap_or(0))).unwrap_or(now);
            if let Some((left, whole)) = self.back_off.remaining(&key, since, now) {
                let at = now + left;
                let message = format!(
                    "back-off {} restarting failed container={name} pod={}",
                    mini_api::go::duration(whole),
                    full_name(pod)
                );
                let old = self.waiting.get(name);
                if old.is_none_or(|w| w.reason != "CrashLoopBackOff" || w.message != message) {
                    let text = format!("Back-off restarting failed container {name} in pod {}", full_name(pod));
                    self.shared.event(pod, Some(name), true, "BackOff", text);
                }
                let waiting = Waiting { reason: "CrashLoopBackOff", message, retry: Some(at) };
                self.waiting.insert(name.to_owned(), waiting);
                return Taken::Later(at);
            }
            self.back_off.failed(&key, since, now);
        } else if let Some(retry) = self.waiting.get(name).and_then(|w| w.retry).filter(|at| *at > Instant::now())
            && !self.volumes_changed
        {
            return Taken::Later(retry);
        }
        let Some(sandbox) = self.observed.live_sandbox().cloned() else { return Taken::Later(self.shared.retry_at()) };
        let sandbox_config: PodSandboxConfig = sandbox::config(&self.shared.config, pod, sandbox.attempt);
        let volumes = self.volumes.clone().unwrap_or_default();
        let shared = Arc::clone(&self.shared);
        let wake = Arc::clone(&self.wake);
        let job = container::Start {
            pod,
            container: &container,
            sandbox: &sandbox,
            sandbox_config: &sandbox_config,
            volumes: &volumes,
            attempt,
            created: &|id| shared.directory.put(id, &wake),
        };
        if self.before.phase.is_none() || self.before.container_statuses.is_none() {
            self.report(pod);
        }
        match container::start(&shared, &job).await {
            Ok(seen) => {
                self.waiting.remove(name);
                self.observed.put(seen);
                self.forget_old(pod, name).await;
                Taken::Done
            }
            Err(waiting) => {
                let at = waiting.retry.unwrap_or_else(|| shared.retry_at());
                if waiting.reason == "CreateContainerConfigError" {
                    let mut all = volumes::references(pod);
                    all.extend(crate::env::references(pod, &container));
                    shared.cluster.follow(uid(pod), all);
                }
                let failed_to_run = waiting.reason == "RunContainerError";
                self.waiting.insert(name.to_owned(), waiting);
                if failed_to_run {
                    self.stale = true;
                    let _ = self.look().await;
                    return Taken::Done;
                }
                Taken::Later(at)
            }
        }
    }

    /// Of the dead containers of a name the newest is kept, for `logs --previous`; and of dead sandboxes those that hold one.
    async fn forget_old(&mut self, pod: &Pod, name: &str) {
        let dead: Vec<(String, u32)> = self
            .observed
            .containers
            .iter()
            .filter(|c| c.name == name && c.state == State::Exited)
            .skip(1)
            .map(|c| (c.id.clone(), c.attempt))
            .collect();
        for (id, attempt) in dead {
            if self.shared.runtime.remove_container(&id).await.is_ok() {
                self.observed.containers.retain(|c| c.id != id);
                self.recycled.remove(&id);
                self.shared.directory.remove(&id);
                let log = sandbox::log_dir(&self.shared.config, pod).join(name).join(format!("{attempt}.log"));
                let _ = std::fs::remove_file(log);
            }
        }
        let held = |id: &str| self.observed.containers.iter().any(|c| c.sandbox == id);
        let spent = self.observed.sandboxes.iter().skip(1).filter(|s| s.stopped && !held(&s.id));
        let spent: Vec<String> = spent.map(|s| s.id.clone()).collect();
        for id in spent {
            if self.shared.runtime.remove_sandbox(&id).await.is_ok() {
                self.observed.sandboxes.retain(|s| s.id != id);
                self.shared.directory.remove(&id);
            }
        }
    }

    fn facts<'a>(
        &'a self,
        pod: &'a Pod,
        started: &'a HashSet<String>,
        ready: &'a HashSet<String>,
        last: bool,
    ) -> Facts<'a> {
        let now = Timestamp::now();
        Facts {
            pod,
            observed: &self.observed,
            waiting: &self.waiting,
            started,
            ready,
            recycled: &self.recycled,
            failed: self.failed.as_ref(),
            last,
            start_time: self.start_time.unwrap_or(now),
            now,
            node_ip: self.shared.config.node_ip,
            before: &self.before,
        }
    }

    pub(super) fn status(&self, pod: &Pod, last: bool) -> PodStatus {
        let findings = self.prober.findings();
        generate(&self.facts(pod, &findings.started, &findings.ready, last))
    }

    /// Hands the present status over to be written; never waits.
    pub(super) fn report(&mut self, pod: &Arc<Pod>) {
        if is_settled(pod) {
            return;
        }
        let status = self.status(pod, false);
        // Whoever thought this node lost has told that the pod is not ready; it is heard again.
        let doubted = pod.status.as_ref().is_some_and(|told| is_ready(&status) && !is_ready(told));
        if status != self.before || doubted {
            self.before = status.clone();
            self.shared.cluster.report(pod, status);
        }
    }
}

/// When a pod is tried again that asks for what cannot be.
const NO_SANDBOX: Duration = Duration::from_secs(60);
/// Milliseconds between looks at a container whose end was announced.
const PAUSES: &[u64] = &[0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(122);

/// Whether the status in the API is the last there is to say: nothing may touch it any more, whatever is left of the pod.
pub(super) fn is_settled(pod: &Pod) -> bool {
    let all = pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses)).flatten();
    is_finished(pod) && all.into_iter().all(|c| c.state.as_ref().is_none_or(|s| s.running.is_none()))
}

enum Taken {
    Done,
    Later(Instant),
}

async fn until_ending(orders: &mut watch::Receiver<Order>) {
    loop {
        if orders.borrow_and_update().ends() {
            return;
        }
        if orders.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
