//! `/metrics/cadvisor`: what containers, pods and the node use, under cAdvisor's names and labels.

use super::{Page, Sample, labels, number};
use crate::pod;
use crate::stats::{Interface, PodReading, Reading, Usage};

/// What is read of a cgroup: cAdvisor's name, its kind, its help, and the figure.
type OfGroup = (&'static str, &'static str, &'static str, fn(&Usage) -> f64);
/// What is read of a network interface: cAdvisor's name of the counter, its help, and the figure.
type OfInterface = (&'static str, &'static str, fn(&Interface) -> u64);

const OF_GROUPS: [OfGroup; 5] = [
    ("container_memory_usage_bytes", "gauge", "Memory in use.", |usage| number(usage.memory)),
    ("container_memory_working_set_bytes", "gauge", "Memory in use without file pages not touched lately.", |usage| {
        number(usage.working_set)
    }),
    ("container_memory_rss", "gauge", "Memory that holds no file's contents.", |usage| number(usage.rss)),
    ("container_spec_memory_limit_bytes", "gauge", "The most memory it may have; 0 for no limit.", |usage| {
        number(usage.limit.unwrap_or_default())
    }),
    ("container_processes", "gauge", "Processes and threads.", |usage| number(usage.processes)),
];

const OF_INTERFACES: [OfInterface; 8] = [
    ("container_network_receive_bytes_total", "Bytes received.", |i| i.received),
    ("container_network_receive_errors_total", "Errors in receiving.", |i| i.receive_errors),
    ("container_network_receive_packets_total", "Packets received.", |i| i.receive_packets),
    ("container_network_receive_packets_dropped_total", "Received packets that were dropped.", |i| i.receive_drops),
    ("container_network_transmit_bytes_total", "Bytes sent.", |i| i.sent),
    ("container_network_transmit_errors_total", "Errors in sending.", |i| i.send_errors),
    ("container_network_transmit_packets_total", "Packets sent.", |i| i.send_packets),
    ("container_network_transmit_packets_dropped_total", "Packets to send that were dropped.", |i| i.send_drops),
];

/// Of what a sample is: cAdvisor's labels, empty where they do not fit.
#[derive(Clone, Copy, Default)]
struct Subject<'a> {
    container: &'a str,
    /// The cgroup.
    id: &'a str,
    image: &'a str,
    /// containerd's name of the container.
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
}

impl Subject<'_> {
    /// Names of the API come in the alphabet's order, with `more` after them.
    fn labels(&self, more: &[(&str, &str)]) -> String {
        let own = [
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ];
        labels(&[&own[..], more].concat())
    }
}

/// `cores` and `memory` are the machine's.
pub(crate) fn render(reading: &Reading, cores: usize, memory: u64) -> String {
    let millis = Some(reading.at.as_millisecond());
    let machine = &reading.machine;
    let root = Usage {
        cpu: machine.cpu,
        memory: machine.memory,
        working_set: machine.working_set,
        rss: machine.rss,
        page_faults: machine.page_faults,
        major_page_faults: machine.major_page_faults,
        limit: None,
        processes: machine.processes,
    };
    let whole = Subject { id: "/", ..Subject::default() };
    let groups: Vec<(Subject<'_>, &Usage)> =
        std::iter::once((whole, &root)).chain(reading.pods.iter().flat_map(of_pod)).collect();
    let mut page = Page::default();
    let help = "CPU time used so far, in seconds of a core.";
    let used = groups.iter().map(|(of, usage)| (of.labels(&[("cpu", "total")]), number(usage.cpu) / 1e9));
    page.family("container_cpu_usage_seconds_total", "counter", help, used, millis);
    for (name, kind, help, figure) in OF_GROUPS {
        page.family(name, kind, help, groups.iter().map(|(of, usage)| (of.labels(&[]), figure(usage))), millis);
    }
    let faults = groups.iter().flat_map(|(of, usage)| {
        [("pgfault", usage.page_faults), ("pgmajfault", usage.major_page_faults)]
            .map(|(kind, count)| (of.labels(&[("failure_type", kind), ("scope", "hierarchy")]), number(count)))
    });
    page.family("container_memory_failures_total", "counter", "Pages that were not in memory.", faults, millis);
    let seen = number(u64::try_from(reading.at.as_second()).unwrap_or_default());
    let all_seen = groups.iter().map(|(of, _)| (of.labels(&[]), seen));
    page.family("container_last_seen", "gauge", "When it was read, since 1970.", all_seen, millis);
    let started = reading.pods.iter().flat_map(|pod| {
        pod.containers.iter().map(|c| (container(pod, c).labels(&[]), c.started.as_duration().as_secs_f64()))
    });
    page.family("container_start_time_seconds", "gauge", "When it was made, since 1970.", started, millis);
    for (name, help, figure) in OF_INTERFACES {
        let of = |subject: Subject<'_>, interface: &Interface| -> Sample {
            (subject.labels(&[("interface", &interface.name)]), number(figure(interface)))
        };
        let node = machine.interfaces.iter().map(|interface| of(whole, interface));
        let pods = reading.pods.iter().flat_map(|pod| pod.interfaces.iter().map(|i| of(group(pod), i)));
        page.family(name, "counter", help, node.chain(pods), millis);
    }
    page.one("container_scrape_error", "gauge", "1 if something could not be read.", 0.0);
    page.one("machine_cpu_cores", "gauge", "Processors of the machine.", number(cores as u64));
    page.one("machine_memory_bytes", "gauge", "Memory of the machine.", number(memory));
    page.finish()
}

/// The pod as a whole, and its containers.
fn of_pod(reading: &PodReading) -> impl Iterator<Item = (Subject<'_>, &Usage)> {
    let containers = reading.containers.iter().map(move |c| (container(reading, c), &c.usage));
    std::iter::once((group(reading), &reading.usage)).chain(containers)
}

fn group(reading: &PodReading) -> Subject<'_> {
    let (namespace, pod) = (pod::namespace(&reading.pod), pod::name(&reading.pod));
    Subject { id: &reading.group, namespace, pod, ..Subject::default() }
}

fn container<'a>(pod: &'a PodReading, reading: &'a crate::stats::ContainerReading) -> Subject<'a> {
    Subject { container: &reading.name, id: &reading.group, image: &reading.image, name: &reading.id, ..group(pod) }
}
