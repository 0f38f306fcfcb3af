//! What the node, its pods and their containers use, read from cgroups and `/proc` when somebody asks.
//!
//! Nothing runs between two questions. A rate needs two readings, so the one before is kept; where none is young enough,
//! the answer waits until a second one can be compared with it.

mod cgroup;
mod machine;
mod resource;
mod summary;

pub(crate) use cgroup::Usage;
pub(crate) use machine::Interface;
pub(crate) use resource::render as resource;
pub(crate) use summary::render as summary;

use crate::agent::Agent;
use crate::{cgroups, labels, pod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use machine::Machine;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two readings closer than this say little about a rate.
const SHORTEST: Duration = Duration::from_secs(1);
/// A reading this old is the best to compare with, and one older than the second says little about now.
const GOOD: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// The counters of an earlier reading.
struct Before {
    at: Instant,
    /// Nanoseconds of CPU by what used them: a container's id, a pod's UID, nothing for the node.
    cpu: HashMap<String, u64>,
}

/// The readings to compare the next one with, oldest first; two at most.
#[derive(Default)]
pub(crate) struct Stats {
    kept: tokio::sync::Mutex<Vec<Before>>,
}

/// What was used at one moment.
pub(crate) struct Reading {
    pub(crate) at: Timestamp,
    pub(crate) machine: Machine,
    pub(crate) node_rate: Rate,
    pub(crate) pods: Vec<PodReading>,
}

pub(crate) struct PodReading {
    pub(crate) pod: Arc<Pod>,
    /// Its cgroup.
    pub(crate) group: String,
    pub(crate) usage: Usage,
    pub(crate) rate: Rate,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) containers: Vec<ContainerReading>,
}

pub(crate) struct ContainerReading {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) group: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
    pub(crate) rate: Rate,
}

/// Billionths of a core, on the average of a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) nano_cores: u64,
    pub(crate) window: Duration,
}

impl Rate {
    fn of(used: u64, window: Duration) -> Self {
        let nanos = window.as_nanos().max(1);
        let nano_cores = u128::from(used) * 1_000_000_000 / nanos;
        Self { nano_cores: u64::try_from(nano_cores).unwrap_or(u64::MAX), window }
    }
}

/// A running container, as containerd tells of it.
struct Found {
    uid: String,
    name: String,
    id: String,
    image: String,
    created: i64,
}

impl Stats {
    /// Reads everything now, with rates since the reading before.
    ///
    /// # Errors
    /// containerd does not say which containers there are.
    pub(crate) async fn read(&self, agent: &Agent) -> Result<Reading, tonic::Status> {
        // One at a time: who comes meanwhile compares with the same reading.
        let mut kept = self.kept.lock().await;
        kept.retain(|before| before.at.elapsed() <= LONGEST);
        if kept.is_empty() {
            let first = take(agent).await?;
            kept.push(Before { at: first.0, cpu: first.1.counters() });
        }
        if let Some(oldest) = kept.first() {
            tokio::time::sleep(SHORTEST.saturating_sub(oldest.at.elapsed())).await;
        }
        let (at, mut reading) = take(agent).await?;
        if let Some(before) = base(&kept, at) {
            reading.rate(before, at);
        }
        // The next one shall find a reading of a good age.
        if kept.last().is_none_or(|newest| at - newest.at >= GOOD) {
            let surplus = (kept.len() + 1).saturating_sub(2);
            kept.drain(..surplus);
            kept.push(Before { at, cpu: reading.counters() });
        }
        Ok(reading)
    }
}

/// Reads everything now, without rates.
///
/// # Errors
/// containerd does not say which containers there are.
pub(crate) async fn now(agent: &Agent) -> Result<Reading, tonic::Status> {
    take(agent).await.map(|(_, reading)| reading)
}

/// The youngest reading of a good age, else the oldest.
fn base(kept: &[Before], at: Instant) -> Option<&Before> {
    kept.iter().rev().find(|before| at - before.at >= GOOD).or(kept.first())
}

async fn take(agent: &Agent) -> Result<(Instant, Reading), tonic::Status> {
    let shared = agent.shared();
    let running = i32::from(k8s_cri::v1::ContainerState::ContainerRunning);
    let mut found: HashMap<String, Vec<Found>> = HashMap::new();
    for container in shared.runtime.containers(HashMap::new()).await? {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        if container.state == running {
            let (uid, name) = (label(labels::POD_UID), label(labels::CONTAINER_NAME));
            let image = container.image.map(|spec| spec.image).unwrap_or_default();
            let one = Found { uid, name, id: container.id, image, created: container.created_at };
            found.entry(one.uid.clone()).or_default().push(one);
        }
    }
    let (pods, config) = (agent.pods(), shared.config.clone());
    // Files of the kernel, but some hundred of them.
    let read = tokio::task::spawn_blocking(move || {
        let at = Instant::now();
        let pods = pods.into_iter().filter_map(|pod| {
            let containers = found.remove(pod::uid(&pod))?;
            read_pod(&config.instance, pod, containers)
        });
        let mut pods: Vec<PodReading> = pods.collect();
        pods.sort_by(|a, b| key(&a.pod).cmp(&key(&b.pod)));
        let machine = machine::read(&config.data_dir);
        (at, Reading { at: Timestamp::now(), machine, node_rate: Rate::default(), pods })
    });
    read.await.map_err(|error| tonic::Status::internal(error.to_string()))
}

fn key(pod: &Pod) -> (&str, &str) {
    (pod::namespace(pod), pod::name(pod))
}

fn read_pod(instance: &str, pod: Arc<Pod>, found: Vec<Found>) -> Option<PodReading> {
    let group = cgroups::of_pod(instance, &pod);
    let usage = cgroup::read(&group)?;
    let mut containers: Vec<ContainerReading> = found
        .into_iter()
        .filter_map(|found| {
            let group = cgroups::of_container(&group, &found.id);
            let usage = cgroup::read(&group)?;
            let started = Timestamp::from_nanosecond(found.created.into()).ok()?;
            let Found { name, id, image, .. } = found;
            Some(ContainerReading { name, id, image, group, started, usage, rate: Rate::default() })
        })
        .collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let own_network = !pod.spec.as_ref().is_some_and(|spec| spec.host_network.unwrap_or(false));
    let process = containers.first().filter(|_| own_network);
    let process = process.and_then(|c| cgroup::process(&c.group));
    let interfaces = process.map(|pid| machine::interfaces(Some(pid))).unwrap_or_default();
    Some(PodReading { pod, group, usage, rate: Rate::default(), interfaces, containers })
}

impl Reading {
    fn counters(&self) -> HashMap<String, u64> {
        let pods = self.pods.iter().flat_map(|pod| {
            let containers = pod.containers.iter().map(|c| (c.id.clone(), c.usage.cpu));
            containers.chain(std::iter::once((pod::uid(&pod.pod).to_owned(), pod.usage.cpu)))
        });
        pods.chain(std::iter::once((String::new(), self.machine.cpu))).collect()
    }

    fn rate(&mut self, before: &Before, at: Instant) {
        let since = at - before.at;
        let rate = |key: &str, now: u64| before.cpu.get(key).map(|then| Rate::of(now.saturating_sub(*then), since));
        self.node_rate = rate("", self.machine.cpu).unwrap_or_default();
        for pod in &mut self.pods {
            for container in &mut pod.containers {
                // One that has started since: its counter began at zero.
                let age = Duration::try_from(self.at.duration_since(container.started)).unwrap_or_default();
                container.rate = rate(&container.id, container.usage.cpu)
                    .unwrap_or_else(|| Rate::of(container.usage.cpu, age.max(Duration::from_millis(1))));
            }
            pod.rate = rate(pod::uid(&pod.pod), pod.usage.cpu).unwrap_or_else(|| Rate {
                nano_cores: pod.containers.iter().map(|c| c.rate.nano_cores).sum(),
                window: pod.containers.iter().map(|c| c.rate.window).max().unwrap_or_default(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_average_over_its_window() {
        assert_eq!(Rate::of(500_000_000, Duration::from_secs(2)).nano_cores, 250_000_000);
        assert_eq!(Rate::of(0, Duration::ZERO).nano_cores, 0);
    }

    #[test]
    fn the_youngest_reading_of_a_good_age_is_compared_with() {
        let now = Instant::now() + Duration::from_secs(120);
        let kept = |ages: &[u64]| -> Vec<Before> {
            ages.iter().map(|age| Before { at: now - Duration::from_secs(*age), cpu: HashMap::new() }).collect()
        };
        for (ages, want) in [(vec![30, 12], 12), (vec![30, 5], 30), (vec![3], 3), (vec![12, 11], 11)] {
            let kept = kept(&ages);
            assert_eq!(base(&kept, now).map(|before| (now - before.at).as_secs()), Some(want), "{ages:?}");
        }
    }
}
