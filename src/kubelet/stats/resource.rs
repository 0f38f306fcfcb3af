//! A reading as `/metrics/resource` has it, in the text form of Prometheus.

use super::{ContainerReading, PodReading, Reading};
use crate::metrics::{Page, Sample, labels, number};
use crate::pod;

pub(crate) fn render(reading: &Reading) -> String {
    let millis = Some(reading.at.as_millisecond());
    let containers = |value: fn(&ContainerReading) -> f64| -> Vec<Sample> {
        let all = reading.pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
        all.map(|(pod, container)| (of(pod, Some(&container.name)), value(container))).collect()
    };
    let pods = |value: fn(&PodReading) -> f64| -> Vec<Sample> {
        reading.pods.iter().map(|pod| (of(pod, None), value(pod))).collect()
    };
    let node = |value: f64| [(String::new(), value)];
    let about_cpu = "[STABLE] CPU time used so far, in seconds of a core";
    let about_memory = "[STABLE] Bytes of memory in use, without file pages that were not touched lately";
    let about_start = "[STABLE] When the container was made, since 1970";
    let mut page = Page::default();
    let used = containers(|c| number(c.usage.cpu) / 1e9);
    page.family("container_cpu_usage_seconds_total", "counter", about_cpu, used, millis);
    let memory = containers(|c| number(c.usage.working_set));
    page.family("container_memory_working_set_bytes", "gauge", about_memory, memory, millis);
    let started = containers(|c| c.started.as_duration().as_secs_f64());
    page.family("container_start_time_seconds", "gauge", about_start, started, None);
    let machine = &reading.machine;
    page.family("node_cpu_usage_seconds_total", "counter", about_cpu, node(number(machine.cpu) / 1e9), millis);
    let of_node = node(number(machine.working_set));
    page.family("node_memory_working_set_bytes", "gauge", about_memory, of_node, millis);
    let used = pods(|pod| number(pod.usage.cpu) / 1e9);
    page.family("pod_cpu_usage_seconds_total", "counter", about_cpu, used, millis);
    let memory = pods(|pod| number(pod.usage.working_set));
    page.family("pod_memory_working_set_bytes", "gauge", about_memory, memory, millis);
    page.one("resource_scrape_error", "gauge", "[STABLE] 1 if something could not be read", 0.0);
    page.finish()
}

fn of(reading: &PodReading, container: Option<&str>) -> String {
    let pod = [("namespace", pod::namespace(&reading.pod)), ("pod", pod::name(&reading.pod))];
    let container = container.map(|name| ("container", name));
    labels(&container.into_iter().chain(pod).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Usage;
    use super::super::machine::Machine;
    use super::super::{Interface, Rate};
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
        let container = ContainerReading {
            name: "c".into(),
            id: "i".into(),
            image: "web:1".into(),
            group: "/mini/podu/i".into(),
            started,
            usage: usage.clone(),
            rate,
        };
        let interface = Interface { name: "eth0".into(), received: 5, send_packets: 6, ..Interface::default() };
        Reading {
            at: Timestamp::from_second(1000).unwrap(),
            machine: Machine { cpu: 3_000_000_000, working_set: 9000, ..Machine::default() },
            node_rate: rate,
            pods: vec![super::super::PodReading {
                pod: Arc::new(serde_json::from_value(pod).unwrap()),
                group: "/mini/podu".into(),
                usage,
                rate,
                interfaces: vec![interface],
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
    fn cadvisors_names_and_labels() {
        let text = crate::metrics::cadvisor(&reading(), 2, 1 << 30);
        let own = "container=\"c\",id=\"/mini/podu/i\",image=\"web:1\",name=\"i\",namespace=\"n\",pod=\"p\"";
        let pod = "container=\"\",id=\"/mini/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{own},cpu=\"total\"}} 1.5 1000000"),
            format!("container_memory_working_set_bytes{{{own}}} 2048 1000000"),
            format!("container_memory_usage_bytes{{{pod}}} 4096 1000000"),
            format!("container_spec_memory_limit_bytes{{{own}}} 8192 1000000"),
            format!("container_start_time_seconds{{{own}}} 100 1000000"),
            format!("container_network_receive_bytes_total{{{pod},interface=\"eth0\"}} 5 1000000"),
            format!("container_network_transmit_packets_total{{{pod},interface=\"eth0\"}} 6 1000000"),
            "machine_cpu_cores 2".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(text.contains("container_memory_working_set_bytes{container=\"\",id=\"/\""), "{text}");
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
