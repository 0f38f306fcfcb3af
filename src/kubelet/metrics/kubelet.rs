//! `/metrics`: the kubelet itself, and the process it is part of.

use super::{Page, labels, number};
use crate::agent::Agent;
use k8s_cri::v1::{ContainerState, PodSandboxState};
use mini_sys::usage::Usage;
use std::collections::{BTreeMap, HashMap};

/// # Errors
/// containerd does not say what runs.
pub(crate) async fn render(agent: &Agent) -> Result<String, tonic::Status> {
    let shared = agent.shared();
    let sandboxes = shared.runtime.sandboxes(HashMap::new()).await?;
    let ready = i32::from(PodSandboxState::SandboxReady);
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for container in shared.runtime.containers(HashMap::new()).await? {
        let state = match ContainerState::try_from(container.state) {
            Ok(ContainerState::ContainerCreated) => "created",
            Ok(ContainerState::ContainerRunning) => "running",
            Ok(ContainerState::ContainerExited) => "exited",
            _ => "unknown",
        };
        *states.entry(state).or_default() += 1;
    }
    let mut page = Page::default();
    let node = labels(&[("node", &shared.config.node_name)]);
    page.family("kubelet_node_name", "gauge", "The node's name. The value is always 1.", [(node, 1.0)], None);
    let running = sandboxes.iter().filter(|sandbox| sandbox.state == ready).count() as u64;
    page.one("kubelet_running_pods", "gauge", "Pods that have a running sandbox.", number(running));
    let by_state = states.iter().map(|(state, count)| (labels(&[("container_state", state)]), number(*count)));
    page.family("kubelet_running_containers", "gauge", "Containers by state.", by_state, None);
    let pods = number(agent.pods().len() as u64);
    let of_api = || labels(&[("static", "false")]);
    page.family("kubelet_desired_pods", "gauge", "Pods that this node shall run.", [(of_api(), pods)], None);
    page.family("kubelet_active_pods", "gauge", "Pods that have a worker.", [(of_api(), pods)], None);
    operations(&mut page, &shared.runtime.operations().counts());
    process(&mut page);
    let version = labels(&[("git_version", mini_api::KUBERNETES_VERSION)]);
    page.family("kubernetes_build_info", "gauge", "The served version. The value is always 1.", [(version, 1.0)], None);
    Ok(page.finish())
}

fn operations(page: &mut Page, counts: &BTreeMap<&'static str, super::operations::Count>) {
    let of = |operation: &str| labels(&[("operation_type", operation)]);
    let calls = counts.iter().map(|(operation, count)| (of(operation), number(count.calls)));
    page.family("kubelet_runtime_operations_total", "counter", "Calls of containerd.", calls, None);
    let failed = counts.iter().filter(|(_, count)| count.errors > 0);
    let errors = failed.map(|(operation, count)| (of(operation), number(count.errors)));
    page.family("kubelet_runtime_operations_errors_total", "counter", "Calls of containerd that failed.", errors, None);
    let name = "kubelet_runtime_operations_duration_seconds";
    let sums = counts.iter().map(|(operation, count)| (format!("_sum{}", of(operation)), count.seconds));
    let numbers = counts.iter().map(|(operation, count)| (format!("_count{}", of(operation)), number(count.calls)));
    page.family(name, "summary", "How long calls of containerd took.", sums.chain(numbers), None);
    let of = |operation: &str| counts.get(operation).copied().unwrap_or_default();
    let (sandbox, container) = (of("run_podsandbox"), of("start_container"));
    page.one("kubelet_started_pods_total", "counter", "Sandboxes that were to start.", number(sandbox.calls));
    let help = "Sandboxes that did not start.";
    page.one("kubelet_started_pods_errors_total", "counter", help, number(sandbox.errors));
    let plain = || labels(&[("container_type", "container")]);
    let calls = [(plain(), number(container.calls))];
    page.family("kubelet_started_containers_total", "counter", "Containers that were to start.", calls, None);
}

/// The whole of `mini`, which the kubelet is a part of.
fn process(page: &mut Page) {
    let used = Usage::own();
    let rows = [
        ("process_cpu_seconds_total", "counter", "CPU time that mini has used, in seconds.", used.cpu_seconds),
        ("process_open_fds", "gauge", "Open files of mini.", used.open_files),
        ("process_resident_memory_bytes", "gauge", "Memory of mini.", used.resident),
        ("process_start_time_seconds", "gauge", "When mini started, since 1970.", used.started),
        ("process_virtual_memory_bytes", "gauge", "Addresses that mini has taken.", used.addresses),
    ];
    for (name, kind, help, value) in rows {
        if let Some(value) = value {
            page.one(name, kind, help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::operations::Operations;
    use super::*;
    use std::time::Duration;

    fn value(text: &str, name: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    #[test]
    fn calls_are_told_by_their_kind() {
        let counted = Operations::default();
        counted.count("run_podsandbox", Duration::from_millis(500), false);
        counted.count("run_podsandbox", Duration::from_millis(250), true);
        counted.count("version", Duration::ZERO, false);
        let mut page = Page::default();
        operations(&mut page, &counted.counts());
        let text = page.finish();
        assert_eq!(value(&text, "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"}"), 2.0);
        assert_eq!(value(&text, "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"}"), 1.0);
        assert!(!text.contains("errors_total{operation_type=\"version\"}"), "{text}");
        let took = "kubelet_runtime_operations_duration_seconds_sum{operation_type=\"run_podsandbox\"}";
        assert_eq!(value(&text, took), 0.75);
        assert_eq!(value(&text, "kubelet_started_pods_errors_total"), 1.0);
    }

    #[test]
    fn this_process_is_measured() {
        let mut page = Page::default();
        process(&mut page);
        let text = page.finish();
        assert!(value(&text, "process_resident_memory_bytes") > 1e5, "{text}");
        assert!(value(&text, "process_open_fds") >= 3.0, "{text}");
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        let started = value(&text, "process_start_time_seconds");
        assert!(started <= now + 2.0 && started > now - 3600.0, "{started} {now}");
    }
}
