//! Requests and limits: QoS class, CPU shares and quota, memory limit, OOM score.

use k8s_cri::v1::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mini_api::quantity::Quantity as Parsed;
use std::collections::BTreeMap;

const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type List = Option<BTreeMap<String, Quantity>>;

/// Thousandths of a core.
pub(crate) fn milli_cpu(list: &List) -> Option<i64> {
    list.as_ref()?.get("cpu").and_then(|q| Parsed::parse(&q.0).ok()).map(|q| q.milli())
}

/// Bytes, or counts.
pub(crate) fn whole(list: &List, name: &str) -> Option<i64> {
    list.as_ref()?.get(name).and_then(|q| Parsed::parse(&q.0).ok()).map(|q| q.value())
}

pub(crate) fn limits(container: &Container) -> List {
    container.resources.as_ref().and_then(|r| r.limits.clone())
}

pub(crate) fn requests(container: &Container) -> List {
    container.resources.as_ref().and_then(|r| r.requests.clone())
}

pub(crate) fn qos(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let whole_pod = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let all: Vec<(List, List)> = match whole_pod {
        // What the pod as a whole asks for is what counts.
        Some(resources) => vec![(resources.limits.clone(), resources.requests.clone())],
        None => containers.map(|container| (limits(container), requests(container))).collect(),
    };
    let (mut any, mut guaranteed) = (false, true);
    for (limits, requests) in all {
        let pairs =
            [(milli_cpu(&requests), milli_cpu(&limits)), (whole(&requests, "memory"), whole(&limits, "memory"))];
        for (request, limit) in pairs {
            let (request, limit) = (request.filter(|v| *v > 0), limit.filter(|v| *v > 0));
            any |= request.is_some() || limit.is_some();
            // A request that is not given is the limit.
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

pub(crate) fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

pub(crate) fn quota(milli: i64) -> i64 {
    (milli * PERIOD / 1000).max(MIN_QUOTA)
}

pub(crate) fn of_container(pod: &Pod, container: &Container, node_memory: i64) -> LinuxContainerResources {
    let (limits, requests) = (limits(container), requests(container));
    let cpu_request = milli_cpu(&requests).or_else(|| milli_cpu(&limits)).unwrap_or(0);
    let memory_request = whole(&requests, "memory").or_else(|| whole(&limits, "memory")).unwrap_or(0);
    let mut out = LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_shares: shares(cpu_request),
        oom_score_adj: match qos(pod) {
            Qos::Guaranteed => -997,
            Qos::BestEffort => 1000,
            Qos::Burstable => (1000 - 1000 * memory_request / node_memory.max(1)).clamp(3, 999),
        },
        ..Default::default()
    };
    if let Some(limit) = milli_cpu(&limits).filter(|l| *l > 0) {
        out.cpu_quota = quota(limit);
    }
    if let Some(limit) = whole(&limits, "memory").filter(|l| *l > 0) {
        out.memory_limit_in_bytes = limit;
    }
    out
}

/// `MemTotal` in bytes.
pub(crate) fn machine_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

pub(crate) fn machine_cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        assert_eq!(qos(&pod(json!({}))), Qos::BestEffort);
        assert_eq!(qos(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))), Qos::Guaranteed);
        assert_eq!(qos(&pod(json!({"limits": {"cpu": "1"}}))), Qos::Burstable);
        let uneven = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(qos(&pod(uneven)), Qos::Burstable);
        let mut whole = pod(json!({"requests": {"cpu": "1"}}));
        whole.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({"limits": {"cpu": "1", "memory": "1Gi"}})).unwrap();
        assert_eq!(qos(&whole), Qos::Guaranteed);
    }

    #[test]
    fn limits_reach_the_cgroup() {
        let pod = pod(json!({"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}));
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let out = of_container(&pod, container, 1 << 30);
        assert_eq!((out.cpu_quota, out.cpu_shares, out.memory_limit_in_bytes), (25_000, 102, 64 << 20));
        assert_eq!(out.oom_score_adj, 1000 - 62);
    }
}
