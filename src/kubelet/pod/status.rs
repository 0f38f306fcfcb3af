//! The `status` of a pod, from what containerd has and what the worker knows.
//!
//! Pure: the clock comes in as an argument. Follows upstream's `getPhase` and condition generators.

use super::container::Waiting;
use super::observed::{Observed, Seen, State};
use super::{host_network, init_containers, is_sidecar, main_containers, restart_policy};
use crate::resources;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) waiting: &'a HashMap<String, Waiting>,
    pub(crate) started: &'a HashSet<String>,
    pub(crate) ready: &'a HashSet<String>,
    /// Containers ended in order to be started again, whatever the policy says.
    pub(crate) recycled: &'a HashSet<String>,
    /// Reason and message of a failure of the pod as a whole (`DeadlineExceeded`).
    pub(crate) failed: Option<&'a (String, String)>,
    /// No container will be started any more.
    pub(crate) last: bool,
    pub(crate) start_time: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) node_ip: IpAddr,
    /// The status this one follows, for the times of its conditions.
    pub(crate) before: &'a PodStatus,
}

pub(crate) fn generate(facts: &Facts<'_>) -> PodStatus {
    let pod = facts.pod;
    let init: Vec<ContainerStatus> = init_containers(pod).iter().map(|c| facts.container(c, true)).collect();
    let mains: Vec<ContainerStatus> = main_containers(pod).iter().map(|c| facts.container(c, false)).collect();
    let phase = facts.phase(&init, &mains);
    let sandbox = facts.observed.live_sandbox();
    let host = facts.node_ip.to_string();
    let mut ips: Vec<String> = match sandbox {
        Some(sandbox) if host_network(pod) => {
            let _ = sandbox;
            vec![host.clone()]
        }
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if ips.is_empty() && (facts.last || matches!(phase, "Succeeded" | "Failed")) {
        // The address of a pod that is over stays on record.
        ips = facts.before.pod_ips.iter().flatten().map(|p| p.ip.clone()).collect();
    }
    // Of a pod that was refused or too late before anything ran there is nothing to tell.
    let told = facts.failed.is_none() || !facts.observed.containers.is_empty();
    let conditions =
        facts.conditions(&init, &mains, phase, sandbox.is_some() && (host_network(pod) || !ips.is_empty()));
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: facts.failed.map(|f| f.0.clone()),
        message: facts.failed.map(|f| f.1.clone()),
        conditions: Some(conditions),
        host_ip: Some(host.clone()),
        host_ips: Some(vec![HostIP { ip: host }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: Some(Time(facts.start_time)),
        qos_class: Some(resources::qos(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        init_container_statuses: (told && !init.is_empty()).then_some(init),
        container_statuses: (told && !mains.is_empty()).then_some(mains),
        ..Default::default()
    }
}

fn time(nanoseconds: i64) -> Option<Time> {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    (nanoseconds != 0).then(|| Timestamp::from_second(seconds).ok().map(Time)).flatten()
}

fn full_id(seen: &Seen) -> String {
    format!("containerd://{}", seen.id)
}

fn terminated(seen: &Seen) -> ContainerState {
    let reason = match (seen.reason.as_str(), seen.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: seen.exit_code,
            reason: Some(reason.to_owned()),
            message: (!seen.message.is_empty()).then(|| seen.message.clone()),
            // As upstream has it for a container that could not be started.
            started_at: time(seen.started_at).or(Some(Time(Timestamp::UNIX_EPOCH))),
            finished_at: time(seen.finished_at),
            container_id: Some(full_id(seen)),
            signal: None,
        }),
        ..Default::default()
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..Default::default()
    }
}

impl Facts<'_> {
    /// Whether the policy lets an ended container run again; what does not is ended, whatever was reported of it.
    fn may_restart(&self, ended: &Seen) -> bool {
        if self.recycled.contains(&ended.id) {
            return true;
        }
        match restart_policy(self.pod) {
            "Never" => false,
            "OnFailure" => ended.exit_code != 0,
            _ => true,
        }
    }

    /// On its way from one container of this name to the next.
    fn is_replaced(&self, container: &Container) -> bool {
        let ended = self.observed.latest(&container.name).filter(|seen| seen.state == State::Exited);
        !self.last && ended.is_some_and(|seen| self.recycled.contains(&seen.id))
    }

    fn container(&self, container: &Container, init: bool) -> ContainerStatus {
        let seen = self.observed.latest(&container.name);
        let before = self.before.container_statuses.iter().chain(&self.before.init_container_statuses).flatten();
        let before = before.into_iter().find(|s| s.name == container.name);
        let running = seen.is_some_and(|s| s.state == State::Running);
        let over = seen.is_some_and(|s| s.state == State::Exited && !self.may_restart(s));
        let why = self.waiting.get(&container.name).filter(|_| !running && !self.last && !over);
        let (state, last) = match (seen, why) {
            (Some(seen), _) if seen.state == State::Running => {
                let running = ContainerStateRunning { started_at: time(seen.started_at) };
                let previous = self.observed.previous(&container.name, &seen.id);
                (ContainerState { running: Some(running), ..Default::default() }, previous.map(terminated))
            }
            (Some(seen), Some(why)) if seen.state == State::Exited => {
                (waiting(why.reason, &why.message), Some(terminated(seen)))
            }
            (Some(seen), _) if seen.state == State::Exited => {
                (terminated(seen), self.observed.previous(&container.name, &seen.id).map(terminated))
            }
            (_, Some(why)) => (waiting(why.reason, &why.message), None),
            _ => {
                let initializing = !init && init_containers(self.pod).iter().any(|c| !self.init_done(c));
                (waiting(if initializing { "PodInitializing" } else { "ContainerCreating" }, ""), None)
            }
        };
        // What is now the state was the last state while a start was still being tried.
        let known = before.and_then(|b| b.last_state.clone()).filter(|l| l.terminated != state.terminated);
        let last = last.or(known);
        let started = seen.is_some_and(|s| running && self.started.contains(&s.id));
        let ready = match seen {
            Some(seen) if init && !is_sidecar(container) => seen.state == State::Exited && seen.exit_code == 0,
            Some(seen) => running && self.ready.contains(&seen.id),
            None => false,
        };
        ContainerStatus {
            name: container.name.clone(),
            image: seen
                .map(|s| s.image.clone())
                .filter(|i| !i.is_empty())
                .unwrap_or_else(|| container.image.clone().unwrap_or_default()),
            image_id: seen.map(|s| s.image_id.clone()).unwrap_or_default(),
            container_id: seen.map(full_id),
            ready,
            started: Some(started),
            restart_count: match (seen, before) {
                (Some(seen), _) => i32::try_from(seen.attempt).unwrap_or(i32::MAX),
                (None, Some(before)) => before.restart_count,
                (None, None) => 0,
            },
            state: Some(state),
            last_state: Some(last.unwrap_or_default()),
            allocated_resources: resources::requests(container).filter(|r| !r.is_empty()),
            resources: container.resources.clone(),
            ..Default::default()
        }
    }

    fn init_done(&self, container: &Container) -> bool {
        self.observed.latest(&container.name).is_some_and(|seen| {
            if is_sidecar(container) {
                seen.state == State::Running && self.started.contains(&seen.id)
            } else {
                seen.state == State::Exited && seen.exit_code == 0
            }
        })
    }

    fn phase(&self, init: &[ContainerStatus], mains: &[ContainerStatus]) -> &'static str {
        if self.failed.is_some() {
            return "Failed";
        }
        match self.before.phase.as_deref() {
            Some("Failed") => return "Failed",
            Some("Succeeded") => return "Succeeded",
            _ => {}
        }
        let policy = restart_policy(self.pod);
        let state = |s: &ContainerStatus| s.state.clone().unwrap_or_default();
        let ended = |s: &ContainerStatus| -> Option<i32> {
            let now = state(s);
            let last = || s.last_state.as_ref().and_then(|l| l.terminated.as_ref()).filter(|_| now.waiting.is_some());
            now.terminated.as_ref().or_else(last).map(|t| t.exit_code)
        };
        let begun = mains.iter().any(|s| state(s).running.is_some() || ended(s).is_some());
        let mut pending = 0;
        for (container, status) in init_containers(self.pod).iter().zip(init) {
            if is_sidecar(container) {
                pending += i32::from(!begun && status.started != Some(true));
                continue;
            }
            match state(status).terminated.map(|t| t.exit_code) {
                Some(0) => {}
                Some(_) if (policy == "Never" || self.last) && !self.is_replaced(container) => return "Failed",
                _ => pending += 1,
            }
        }
        if pending > 0 && !begun {
            return if self.last { "Failed" } else { "Pending" };
        }
        if main_containers(self.pod).iter().any(|c| self.is_replaced(c)) {
            return "Running";
        }
        let running = mains.iter().filter(|s| state(s).running.is_some()).count();
        let codes: Vec<i32> = mains.iter().filter_map(ended).collect();
        let failed = codes.iter().any(|c| *c != 0);
        if running + codes.len() < mains.len() {
            return if self.last { "Failed" } else { "Pending" };
        }
        match (running, self.last) {
            (1.., _) => "Running",
            (0, true) => {
                if failed {
                    "Failed"
                } else {
                    "Succeeded"
                }
            }
            (0, false) => match policy {
                "Always" => "Running",
                _ if !failed => "Succeeded",
                "Never" => "Failed",
                _ => "Running",
            },
        }
    }

    fn conditions(
        &self,
        init: &[ContainerStatus],
        mains: &[ContainerStatus],
        phase: &str,
        network: bool,
    ) -> Vec<PodCondition> {
        let unfinished: Vec<&str> = init_containers(self.pod)
            .iter()
            .zip(init)
            .filter(|(c, s)| if is_sidecar(c) { s.started != Some(true) } else { !s.ready })
            .map(|(c, _)| c.name.as_str())
            .collect();
        let begun = mains.iter().any(|s| {
            s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some()) || s.restart_count > 0
        });
        let sidecars = init_containers(self.pod).iter().zip(init).filter(|(c, _)| is_sidecar(c)).map(|(_, s)| s);
        let unready: Vec<&str> = sidecars.chain(mains).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        let list = |names: &[&str]| format!("[{}]", names.join(" "));

        let initialized = match phase {
            "Succeeded" => (true, Some("PodCompleted"), None),
            _ if unfinished.is_empty() || begun => (true, None, None),
            _ => (
                false,
                Some("ContainersNotInitialized"),
                Some(format!("containers with incomplete status: {}", list(&unfinished))),
            ),
        };
        let containers_ready = match phase {
            "Succeeded" => (false, Some("PodCompleted"), None),
            "Failed" => (false, Some("PodFailed"), None),
            _ if unready.is_empty() => (true, None, None),
            _ => {
                (false, Some("ContainersNotReady"), Some(format!("containers with unready status: {}", list(&unready))))
            }
        };
        let gates = self.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
        let held = |kind: &str| {
            let all = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            all.into_iter().any(|c| c.type_ == kind && c.status == "True")
        };
        let closed: Vec<String> = gates
            .filter(|g| !held(&g.condition_type))
            .map(|g| format!("corresponding condition of pod readiness gate \"{}\" does not exist.", g.condition_type))
            .collect();
        let ready = if containers_ready.0 && !closed.is_empty() {
            (false, Some("ReadinessGatesNotReady"), Some(closed.join(", ")))
        } else {
            containers_ready.clone()
        };
        vec![
            self.condition("PodReadyToStartContainers", (network, None, None)),
            self.condition("Initialized", initialized),
            self.condition("Ready", ready),
            self.condition("ContainersReady", containers_ready),
        ]
    }

    fn condition(&self, kind: &str, what: (bool, Option<&str>, Option<String>)) -> PodCondition {
        let status = if what.0 { "True" } else { "False" };
        let before = self.before.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == status);
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: what.1.map(str::to_owned),
            message: what.2,
            last_probe_time: None,
            last_transition_time: before
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Timestamp::from_second(self.now.as_second()).ok().map(Time)),
            observed_generation: self.pod.metadata.generation,
        }
    }
}

#[cfg(test)]
mod tests;
