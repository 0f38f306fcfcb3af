//! A reading as `/stats/summary` has it. `windowNanoSeconds` is ours: over how long `usageNanoCores` is an average.

use super::cgroup::Usage;
use super::machine::Interface;
use super::{ContainerReading, PodReading, Rate, Reading};
use crate::pod;
use jiff::Timestamp;
use mini_api::time;
use serde_json::{Value, json};

/// `brief`: CPU and memory only.
pub(crate) fn render(reading: &Reading, node: &str, brief: bool) -> Value {
    let (at, machine) = (time::seconds(reading.at), &reading.machine);
    let booted = Timestamp::from_second(machine.booted).map(time::seconds).unwrap_or_default();
    let mut own = json!({
        "nodeName": node, "startTime": booted,
        "cpu": cpu(&at, machine.cpu, reading.node_rate),
        "memory": {
            "time": at, "availableBytes": machine.available, "usageBytes": machine.memory,
            "workingSetBytes": machine.working_set, "rssBytes": machine.rss,
            "pageFaults": machine.page_faults, "majorPageFaults": machine.major_page_faults,
        },
    });
    if !brief {
        let disk = &machine.disk;
        let fs = json!({
            "time": at, "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": disk.used,
            "inodesFree": disk.inodes_free, "inodes": disk.inodes,
            "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
        });
        own["network"] = network(&at, &machine.interfaces);
        own["runtime"] = json!({"imageFs": fs, "containerFs": fs});
        own["fs"] = fs;
        own["rlimit"] = json!({"time": at, "maxpid": machine.most_processes, "curproc": machine.processes});
    }
    let pods: Vec<Value> = reading.pods.iter().map(|pod| of_pod(&at, pod, brief)).collect();
    json!({"node": own, "pods": pods})
}

fn of_pod(at: &str, reading: &PodReading, brief: bool) -> Value {
    let pod = &reading.pod;
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|t| time::seconds(t.0));
    let mut out = json!({
        "podRef": {"name": pod::name(pod), "namespace": pod::namespace(pod), "uid": pod::uid(pod)},
        "startTime": started,
        "containers": reading.containers.iter().map(|c| of_container(at, c)).collect::<Vec<_>>(),
        "cpu": cpu(at, reading.usage.cpu, reading.rate),
        "memory": memory(at, &reading.usage),
    });
    if !brief {
        out["process_stats"] = json!({"process_count": reading.usage.processes});
        if !reading.interfaces.is_empty() {
            out["network"] = network(at, &reading.interfaces);
        }
    }
    out
}

fn of_container(at: &str, container: &ContainerReading) -> Value {
    json!({
        "name": container.name, "startTime": time::seconds(container.started),
        "cpu": cpu(at, container.usage.cpu, container.rate), "memory": memory(at, &container.usage),
    })
}

fn cpu(at: &str, used: u64, rate: Rate) -> Value {
    let window = u64::try_from(rate.window.as_nanos()).unwrap_or(u64::MAX);
    json!({"time": at, "usageNanoCores": rate.nano_cores, "usageCoreNanoSeconds": used, "windowNanoSeconds": window})
}

fn memory(at: &str, usage: &Usage) -> Value {
    let mut out = json!({
        "time": at, "usageBytes": usage.memory, "workingSetBytes": usage.working_set, "rssBytes": usage.rss,
        "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = usage.limit {
        out["availableBytes"] = limit.saturating_sub(usage.working_set).into();
    }
    out
}

/// The first interface stands for all where only one is asked for.
fn network(at: &str, interfaces: &[Interface]) -> Value {
    let all: Vec<Value> = interfaces
        .iter()
        .map(|i| {
            json!({"name": i.name, "rxBytes": i.received, "rxErrors": i.receive_errors, "txBytes": i.sent,
                "txErrors": i.send_errors})
        })
        .collect();
    let mut out = all.first().cloned().unwrap_or_else(|| json!({}));
    out["time"] = at.into();
    out["interfaces"] = all.into();
    out
}
