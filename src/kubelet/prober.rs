//! Startup, liveness and readiness probes: one task for each probe of each running container.
//!
//! Results wake the pod's worker only when they change it. Invariant: a probe never touches a container; it says, the worker does.

mod grpc;
pub(crate) mod request;

use crate::agent::{Shared, Wake};
use crate::metrics::probes::Results;
use crate::pod::{self, observed::Observed};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// What probes have found, by container id.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) started: HashSet<String>,
    pub(crate) ready: HashSet<String>,
    pub(crate) condemned: HashMap<String, Verdict>,
}

/// Why a container has to go.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// What the `Killing` event says.
    pub(crate) why: String,
    /// Seconds to end in, where the probe has a grace of its own.
    pub(crate) grace: Option<i64>,
}

/// The probes of one pod.
pub(crate) struct Prober {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    findings: Arc<Mutex<Findings>>,
    /// Wakes liveness and readiness probes when their container's startup probe has passed.
    passed: Arc<Notify>,
    tasks: HashMap<(String, Kind), AbortHandle>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Prober {
    pub(crate) fn new(shared: Arc<Shared>, wake: Arc<Wake>) -> Self {
        Self { shared, wake, findings: Arc::default(), passed: Arc::default(), tasks: HashMap::new() }
    }

    pub(crate) fn findings(&self) -> parking_lot::MutexGuard<'_, Findings> {
        self.findings.lock()
    }

    pub(crate) fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
    }

    /// Probes every running container, and no other. What a container is before its first probe: adopted ones are what the
    /// API says they were.
    pub(crate) fn follow(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let running: HashSet<&str> = observed.running().map(|c| c.id.as_str()).collect();
        self.tasks.retain(|(id, _), task| {
            let keep = running.contains(id.as_str());
            if !keep {
                task.abort();
            }
            keep
        });
        {
            let mut findings = self.findings.lock();
            findings.started.retain(|id| running.contains(id.as_str()));
            findings.ready.retain(|id| running.contains(id.as_str()));
            findings.condemned.retain(|id, _| running.contains(id.as_str()));
        }
        for seen in observed.running() {
            let Some(container) = pod::find_container(pod, &seen.name) else { continue };
            let probes = [
                (Kind::Startup, &container.startup_probe),
                (Kind::Liveness, &container.liveness_probe),
                (Kind::Readiness, &container.readiness_probe),
            ];
            {
                let known = known_status(pod, &seen.id);
                let mut findings = self.findings.lock();
                if container.startup_probe.is_none() || known.is_some_and(|k| k.0) {
                    findings.started.insert(seen.id.clone());
                }
                let first = !self.tasks.contains_key(&(seen.id.clone(), Kind::Readiness));
                if container.readiness_probe.is_none() {
                    if findings.started.contains(&seen.id) {
                        findings.ready.insert(seen.id.clone());
                    }
                } else if first && known.is_some_and(|k| k.1) {
                    findings.ready.insert(seen.id.clone());
                }
            }
            for (kind, probe) in probes {
                let Some(probe) = probe else { continue };
                let key = (seen.id.clone(), kind);
                // A container starts once: an adopted one that had is not asked again.
                let over = kind == Kind::Startup && self.findings.lock().started.contains(&seen.id);
                if over || self.tasks.contains_key(&key) {
                    continue;
                }
                let job = Job {
                    shared: Arc::clone(&self.shared),
                    wake: Arc::clone(&self.wake),
                    findings: Arc::clone(&self.findings),
                    passed: Arc::clone(&self.passed),
                    pod: Arc::clone(pod),
                    container: container.clone(),
                    probe: probe.clone(),
                    kind,
                    id: seen.id.clone(),
                    ips: observed.live_sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
                    age: age(seen.started_at),
                    results: self.shared.probes.add(
                        kind.words(),
                        pod::namespace(pod),
                        pod::name(pod),
                        pod::uid(pod),
                        &container.name,
                    ),
                };
                self.tasks.insert(key, tokio::spawn(job.run()).abort_handle());
            }
        }
    }
}

/// `(started, ready)` of a container as the API has it.
fn known_status(pod: &Pod, id: &str) -> Option<(bool, bool)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let full = format!("containerd://{id}");
    let own = all.into_iter().find(|c| c.container_id.as_deref() == Some(&full))?;
    Some((own.started.unwrap_or(false), own.ready))
}

fn age(started_at: i64) -> Duration {
    let now = jiff::Timestamp::now().as_nanosecond();
    Duration::from_nanos(u64::try_from(now - i128::from(started_at)).unwrap_or(0))
}

/// A container that has just started listens in a moment: until this long after the first probe it is asked again soon,
/// then later and later, and only what fails after that counts.
const YOUTH: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_millis(15);

struct Job {
    shared: Arc<Shared>,
    wake: Arc<Wake>,
    findings: Arc<Mutex<Findings>>,
    passed: Arc<Notify>,
    pod: Arc<Pod>,
    container: Container,
    probe: Probe,
    kind: Kind,
    id: String,
    ips: Vec<String>,
    age: Duration,
    results: Arc<Results>,
}

impl Job {
    async fn run(self) {
        let seconds = |v: Option<i32>, default: u64| {
            Duration::from_secs(v.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
        };
        let delay = Duration::from_secs(u64::try_from(self.probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
        let period = seconds(self.probe.period_seconds, 10);
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let failures_max = self.probe.failure_threshold.unwrap_or(3).max(1);
        let successes_min = self.probe.success_threshold.unwrap_or(1).max(1);
        tokio::time::sleep(delay.saturating_sub(self.age)).await;
        let (begun, mut soon) = (Instant::now(), SOON);
        let (mut good, mut bad) = (0, 0);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.kind != Kind::Startup {
                self.await_started().await;
            }
            ticks.tick().await;
            match self.once(timeout).await {
                Ok(()) => {
                    self.results.count(true);
                    (good, bad) = (good + 1, 0);
                    if good >= successes_min && self.passed_now() {
                        return;
                    }
                }
                Err(_) if self.kind != Kind::Liveness && begun.elapsed() < YOUTH => {
                    tokio::time::sleep(soon).await;
                    soon *= 2;
                    ticks.reset_immediately();
                }
                Err(why) => {
                    self.results.count(false);
                    (good, bad) = (0, bad + 1);
                    let message = format!("{} probe failed: {why}", self.kind.words());
                    self.shared.event(&self.pod, Some(&self.container.name), true, "Unhealthy", message);
                    if bad >= failures_max && self.failed_now() {
                        return;
                    }
                }
            }
        }
    }

    async fn await_started(&self) {
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            if self.findings.lock().started.contains(&self.id) {
                return;
            }
            passed.await;
        }
    }

    /// True when the probe is over.
    fn passed_now(&self) -> bool {
        let mut findings = self.findings.lock();
        match self.kind {
            Kind::Startup => {
                findings.started.insert(self.id.clone());
                if self.container.readiness_probe.is_none() {
                    findings.ready.insert(self.id.clone());
                }
                self.passed.notify_waiters();
                self.wake.now();
                true
            }
            Kind::Readiness => {
                if findings.ready.insert(self.id.clone()) {
                    self.wake.now();
                }
                false
            }
            Kind::Liveness => false,
        }
    }

    fn failed_now(&self) -> bool {
        let mut findings = self.findings.lock();
        match self.kind {
            Kind::Readiness => {
                if findings.ready.remove(&self.id) {
                    self.wake.now();
                }
                false
            }
            Kind::Startup | Kind::Liveness => {
                let what = if self.kind == Kind::Startup { "startup" } else { "liveness" };
                let why = format!("Container {} failed {what} probe", self.container.name);
                let grace = self.probe.termination_grace_period_seconds;
                findings.condemned.insert(self.id.clone(), Verdict { why, grace });
                self.wake.now();
                true
            }
        }
    }

    async fn once(&self, timeout: Duration) -> Result<(), String> {
        let (pod, container) = (&*self.pod, &self.container);
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            let answer = self.shared.runtime.exec_sync(&self.id, command.clone(), timeout);
            let answer = match tokio::time::timeout(timeout, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(status)) if status.code() != tonic::Code::DeadlineExceeded => {
                    return Err(status.message().to_owned());
                }
                _ => {
                    return Err(format!(
                        "command timed out: {:?} timed out after {}s",
                        command.join(" "),
                        timeout.as_secs()
                    ));
                }
            };
            let output = [answer.stdout, answer.stderr].concat();
            return if answer.exit_code == 0 { Ok(()) } else { Err(String::from_utf8_lossy(&output).into_owned()) };
        }
        if let Some(get) = &self.probe.http_get {
            let target = request::Target::http(&self.shared, pod, container, &self.ips, get)?;
            return match target.get(timeout).await {
                Ok((status, _)) if (200..400).contains(&status) => Ok(()),
                Ok((status, _)) => Err(format!("HTTP probe failed with statuscode: {status}")),
                Err(e) => Err(e),
            };
        }
        if let Some(tcp) = &self.probe.tcp_socket {
            let host = tcp.host.as_deref();
            let address = request::address(&self.shared, pod, container, &self.ips, host, &tcp.port)?;
            return request::dial(&address, timeout).await.map(drop);
        }
        if let Some(call) = &self.probe.grpc {
            let port = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(call.port);
            let address = request::address(&self.shared, pod, container, &self.ips, None, &port)?;
            return grpc::check(&address, call.service.as_deref().unwrap_or_default(), timeout).await;
        }
        Ok(())
    }
}
