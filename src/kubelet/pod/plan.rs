//! What to do next for a pod: a pure function of what is wanted and what is there.
//!
//! Follows upstream's `computePodActions`. Invariant: reads no clock and no machine; the same view gives the same steps.

use super::observed::{Observed, Seen, State};
use super::{init_containers, is_sidecar, main_containers, restart_policy};
use crate::labels;
use crate::prober::Verdict;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{HashMap, HashSet};

/// One thing to do. Steps of one plan are done in order, then a new plan is made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// End what is left of dead sandboxes.
    StopSandbox(String),
    RunSandbox {
        attempt: u32,
    },
    /// Start (again) the container of this name; `after` is the container whose end may ask for a back-off.
    Start {
        name: String,
        attempt: u32,
        after: Option<String>,
    },
    Kill {
        id: String,
        name: String,
        why: String,
        restart: bool,
    },
}

/// What the plan must know beyond containerd.
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    /// Containers past their startup probe.
    pub(crate) started: &'a HashSet<String>,
    /// Containers a probe has condemned.
    pub(crate) condemned: &'a HashMap<String, Verdict>,
    /// Containers we killed in order to restart them: their exit code does not matter.
    pub(crate) recycled: &'a HashSet<String>,
}

pub(crate) fn plan(view: &View<'_>) -> Vec<Step> {
    let observed = view.observed;
    let Some(sandbox) = observed.live_sandbox() else { return without_sandbox(view) };
    let mut steps = Vec::new();
    for old in observed.sandboxes.iter().filter(|s| !s.stopped && s.id != sandbox.id) {
        steps.push(Step::StopSandbox(old.id.clone()));
    }

    let mains_begun = main_containers(view.pod).iter().any(|c| observed.latest_in(&sandbox.id, &c.name).is_some());
    let all_mains_ended = main_containers(view.pod).iter().all(|c| {
        observed.latest_in(&sandbox.id, &c.name).is_some_and(|s| s.state == State::Exited && !view.must_restart(s))
    });
    for container in init_containers(view.pod) {
        let sidecar = is_sidecar(container);
        if mains_begun && !sidecar {
            continue;
        }
        let seen = observed.latest_in(&sandbox.id, &container.name);
        if sidecar && all_mains_ended {
            if let Some(running) = seen.filter(|s| s.state == State::Running) {
                steps.push(Step::Kill {
                    id: running.id.clone(),
                    name: container.name.clone(),
                    why: String::new(),
                    restart: false,
                });
            }
            continue;
        }
        match seen {
            Some(s) if s.state == State::Running => {
                if let Some(why) = view.must_replace(container, s) {
                    steps.push(kill(container, s, &why, true));
                }
                if !sidecar || (!view.started.contains(&s.id) && !mains_begun) {
                    return steps;
                }
            }
            Some(s) if view.is_final(s) && !sidecar && s.exit_code == 0 => {}
            Some(s) if view.is_final(s) && !sidecar && restart_policy(view.pod) == "Never" => return steps,
            other => {
                steps.push(view.start(container, other));
                if !mains_begun {
                    return steps;
                }
            }
        }
    }

    for container in main_containers(view.pod) {
        let in_sandbox = observed.latest_in(&sandbox.id, &container.name);
        match in_sandbox.or_else(|| observed.latest(&container.name)) {
            Some(s) if s.state == State::Running && in_sandbox.is_some() => {
                if let Some(why) = view.must_replace(container, s) {
                    let restart = restart_policy(view.pod) != "Never" || s.hash != labels::hash(container);
                    steps.push(kill(container, s, &why, restart));
                }
            }
            Some(s) if s.state == State::Exited && !view.must_restart(s) => {}
            other => steps.push(view.start(container, other)),
        }
    }
    steps
}

/// There is no sandbox, or it died.
fn without_sandbox(view: &View<'_>) -> Vec<Step> {
    let observed = view.observed;
    // First what is left of the dead: processes, and their hold on network, address and host ports.
    let dead: Vec<Step> =
        observed.sandboxes.iter().filter(|s| !s.stopped).map(|s| Step::StopSandbox(s.id.clone())).collect();
    if !dead.is_empty() {
        return dead;
    }
    // A pod that never restarts and has run is over with its sandbox.
    let over = restart_policy(view.pod) == "Never" && !observed.containers.is_empty();
    let wanted = main_containers(view.pod).iter().any(|c| match observed.latest(&c.name) {
        Some(seen) => seen.state != State::Exited || view.must_restart(seen),
        None => true,
    });
    let mut steps = Vec::new();
    if wanted && !over && !init_failed_for_good(view) {
        steps.push(Step::RunSandbox { attempt: observed.sandboxes.first().map_or(0, |s| s.attempt + 1) });
    }
    steps
}

fn init_failed_for_good(view: &View<'_>) -> bool {
    restart_policy(view.pod) == "Never"
        && init_containers(view.pod)
            .iter()
            .filter(|c| !is_sidecar(c))
            .any(|c| view.observed.latest(&c.name).is_some_and(|s| view.is_final(s) && s.exit_code != 0))
}

fn kill(container: &Container, seen: &Seen, why: &str, restart: bool) -> Step {
    let why = if restart { format!("{why}, will be restarted") } else { why.to_owned() };
    Step::Kill { id: seen.id.clone(), name: container.name.clone(), why, restart }
}

impl View<'_> {
    fn start(&self, container: &Container, seen: Option<&Seen>) -> Step {
        let any = seen.or_else(|| self.observed.latest(&container.name));
        Step::Start {
            name: container.name.clone(),
            attempt: any.map_or(0, |s| s.attempt + 1),
            after: any.filter(|s| s.state == State::Exited).map(|s| s.id.clone()),
        }
    }

    fn must_restart(&self, seen: &Seen) -> bool {
        if self.recycled.contains(&seen.id) {
            return true;
        }
        match restart_policy(self.pod) {
            "Never" => false,
            "OnFailure" => seen.exit_code != 0,
            _ => true,
        }
    }

    /// Ended, and not in order to be started again.
    fn is_final(&self, seen: &Seen) -> bool {
        seen.state == State::Exited && !self.recycled.contains(&seen.id)
    }

    /// Why a running container must go.
    fn must_replace(&self, container: &Container, seen: &Seen) -> Option<String> {
        if !seen.hash.is_empty() && seen.hash != labels::hash(container) {
            return Some(format!("Container {} definition changed", container.name));
        }
        self.condemned.get(&seen.id).map(|verdict| verdict.why.clone())
    }
}

#[cfg(test)]
mod tests;
