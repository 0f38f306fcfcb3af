//! A reading as `/metrics/resource` has it, in the text form of Prometheus.

use super::{PodReading, Reading};
use crate::pod;
use std::fmt::{self, Write};

/// A sample: its labels and its value.
type Sample = (String, f64);

pub(crate) fn render(reading: &Reading) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, reading);
    out
}

fn write(out: &mut String, reading: &Reading) -> fmt::Result {
    let millis = reading.at.as_millisecond();
    let pods = || reading.pods.iter();
    let containers = || pods().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    let of_container = |(pod, name): (&PodReading, &str)| format!("{{container=\"{name}\",{}}}", of_pod(pod));
    let of_pods = |value: fn(&PodReading) -> u64, unit: f64| -> Vec<Sample> {
        pods().map(|pod| (format!("{{{}}}", of_pod(pod)), count(value(pod)) / unit)).collect()
    };
    let node = |value: u64, unit: f64| vec![(String::new(), count(value) / unit)];
    let used: Vec<Sample> =
        containers().map(|(pod, c)| (of_container((pod, &c.name)), count(c.usage.cpu) / 1e9)).collect();
    let memory: Vec<Sample> =
        containers().map(|(pod, c)| (of_container((pod, &c.name)), count(c.usage.working_set))).collect();
    let started: Vec<Sample> =
        containers().map(|(pod, c)| (of_container((pod, &c.name)), c.started.as_duration().as_secs_f64())).collect();
    let about_cpu = "CPU time used so far, in seconds of a core";
    let about_memory = "Bytes of memory in use, without file pages that were not touched lately";
    family(out, "container_cpu_usage_seconds_total", "counter", about_cpu, &used, Some(millis))?;
    family(out, "container_memory_working_set_bytes", "gauge", about_memory, &memory, Some(millis))?;
    family(out, "container_start_time_seconds", "gauge", "When the container was made, since 1970", &started, None)?;
    let machine = &reading.machine;
    family(out, "node_cpu_usage_seconds_total", "counter", about_cpu, &node(machine.cpu, 1e9), Some(millis))?;
    let of_node = node(machine.working_set, 1.0);
    family(out, "node_memory_working_set_bytes", "gauge", about_memory, &of_node, Some(millis))?;
    let used = of_pods(|pod| pod.usage.cpu, 1e9);
    family(out, "pod_cpu_usage_seconds_total", "counter", about_cpu, &used, Some(millis))?;
    let memory = of_pods(|pod| pod.usage.working_set, 1.0);
    family(out, "pod_memory_working_set_bytes", "gauge", about_memory, &memory, Some(millis))?;
    family(out, "resource_scrape_error", "gauge", "1 if something could not be read", &node(0, 1.0), None)
}

fn family(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: &[Sample],
    millis: Option<i64>,
) -> fmt::Result {
    if samples.is_empty() {
        return Ok(());
    }
    writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}")?;
    for (labels, value) in samples {
        match millis {
            Some(millis) => writeln!(out, "{name}{labels} {value} {millis}")?,
            None => writeln!(out, "{name}{labels} {value}")?,
        }
    }
    Ok(())
}

/// Names of the API need no escapes.
fn of_pod(reading: &PodReading) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", pod::namespace(&reading.pod), pod::name(&reading.pod))
}

/// Whole numbers of Prometheus are floating ones.
#[allow(clippy::cast_precision_loss)]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Usage;
    use super::super::machine::Machine;
    use super::super::{ContainerReading, Rate};
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Duration;

    fn reading() -> Reading {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let usage =
            Usage { cpu: 1_500_000_000, working_set: 2048, memory: 4096, limit: Some(8192), ..Usage::default() };
        let rate = Rate { nano_cores: 250, window: Duration::from_secs(2) };
        let started = Timestamp::from_second(100).unwrap();
        let container = ContainerReading { name: "c".into(), id: "i".into(), started, usage: usage.clone(), rate };
        Reading {
            at: Timestamp::from_second(1000).unwrap(),
            machine: Machine { cpu: 3_000_000_000, working_set: 9000, ..Machine::default() },
            node_rate: rate,
            pods: vec![super::super::PodReading {
                pod: Arc::new(serde_json::from_value(pod).unwrap()),
                usage,
                rate,
                interfaces: Vec::new(),
                containers: vec![container],
            }],
        }
    }

    #[test]
    fn every_sample_is_a_line() {
        let text = render(&reading());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 1000000",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 100",
            "node_cpu_usage_seconds_total 3 1000000",
            "pod_memory_working_set_bytes{namespace=\"n\",pod=\"p\"} 2048 1000000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn a_summary_has_upstreams_names() {
        let summary = super::super::summary(&reading(), "m", true);
        assert_eq!(summary["node"]["nodeName"], "m");
        assert!(summary["node"].get("fs").is_none());
        let pod = &summary["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "n", "uid": "u"}));
        let want = json!({"time": "1970-01-01T00:16:40Z", "usageNanoCores": 250,
            "usageCoreNanoSeconds": 1_500_000_000, "windowNanoSeconds": 2_000_000_000});
        assert_eq!(pod["containers"][0]["cpu"], want);
        assert_eq!(pod["containers"][0]["memory"]["workingSetBytes"], 2048);
        assert_eq!(pod["containers"][0]["memory"]["availableBytes"], 8192 - 2048);
        assert!(super::super::summary(&reading(), "m", false)["node"]["fs"].is_object());
    }
}
