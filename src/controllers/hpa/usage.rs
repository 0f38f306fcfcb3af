//! How many replicas a metric asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use mini_api::Quantity;

use super::behavior::ceil;
use crate::pods;

/// The use of cpu of a pod this young tells little.
const INITIAL: SignedDuration = SignedDuration::from_mins(5);

/// Thousandths of a unit by pod.
pub(super) type Samples = BTreeMap<String, i64>;

/// What each pod should use.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// Percent of what it asks for.
    Utilization(i32),
    /// Thousandths.
    Average(i64),
}

pub(super) struct Answer {
    pub(super) replicas: i32,
    pub(super) utilization: Option<i32>,
    /// Thousandths for each pod.
    pub(super) average: i64,
}

/// A resource of pods, or of one container in each.
pub(super) struct Question<'a> {
    pub(super) resource: &'a str,
    pub(super) container: Option<&'a str>,
    pub(super) target: Target,
    pub(super) current: i32,
    pub(super) tolerance: Tolerance,
}

/// How far from the target is near enough.
#[derive(Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    /// Where nothing else is said.
    const USUAL: f64 = 0.1;

    pub(super) fn of(hpa: &HorizontalPodAutoscaler) -> Self {
        let behavior = hpa.spec.behavior.as_ref();
        let of = |rules: Option<&HPAScalingRules>| {
            let said = rules.and_then(|rules| rules.tolerance.as_ref()).and_then(|said| Quantity::parse(&said.0).ok());
            // Finer than a thousandth makes no difference that pods could show.
            said.map_or(Self::USUAL, |said| said.milli() as f64 / 1000.0)
        };
        Self {
            down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
            up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
        }
    }

    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

fn milli(quantity: &str) -> i64 {
    Quantity::parse(quantity).map_or(0, |quantity| quantity.milli())
}

impl Question<'_> {
    fn request(&self, pod: &Pod) -> Result<i64, String> {
        let Some(spec) = &pod.spec else { return Ok(0) };
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let asked = |container: &Container| {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            requests.and_then(|requests| requests.get(self.resource)).map(|quantity| milli(&quantity.0))
        };
        let mut total = 0;
        for container in spec.containers.iter().chain(sidecars) {
            if self.container.is_some_and(|name| name != container.name) {
                continue;
            }
            total += asked(container).ok_or_else(|| {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                format!("missing request for {} in container {} of Pod {pod}", self.resource, container.name)
            })?;
        }
        Ok(total)
    }

    /// Whether a pod's use is not to be trusted yet.
    fn is_unready(&self, pod: &Pod, now: Timestamp) -> bool {
        if pods::phase(pod) == "Pending" {
            return true;
        }
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let young = started.is_none_or(|start| now.duration_since(start.0) < INITIAL);
        self.resource == "cpu" && !pods::is_ready(pod) && young
    }

    /// The number of replicas at which each pod would use what it should. Pods without a sample are taken to use all
    /// when fewer are wished, and nothing when more are.
    pub(super) fn ask(&self, all: &[Arc<Pod>], samples: &Samples, now: Timestamp) -> Result<Answer, String> {
        let (mut used, mut unready, mut missing) = (HashMap::new(), Vec::new(), Vec::new());
        let mut requests = HashMap::new();
        for pod in all.iter().filter(|pod| pods::is_active(pod)) {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if matches!(self.target, Target::Utilization(_)) {
                requests.insert(name.clone(), self.request(pod)?);
            }
            match samples.get(&name) {
                _ if self.is_unready(pod, now) => unready.push(name),
                Some(sample) => drop(used.insert(name, *sample)),
                None => missing.push(name),
            }
        }
        if used.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        let first = self.ratio(&used, &requests)?;
        let (sampled, sum) = (used.len(), used.values().sum::<i64>());
        let average = sum / i64::try_from(sampled).unwrap_or(1);
        let asked: i64 = used.keys().filter_map(|name| requests.get(name)).sum();
        let utilization = (asked > 0).then(|| i32::try_from(sum * 100 / asked).unwrap_or(i32::MAX));
        let answer = |replicas| Ok(Answer { replicas, utilization, average });
        let near = |ratio: f64| self.tolerance.holds(ratio);
        let count = |number: usize| f64::from(i32::try_from(number).unwrap_or(i32::MAX));
        let with_unready = !unready.is_empty() && first > 1.0;
        if missing.is_empty() && !with_unready {
            return answer(if near(first) { self.current } else { ceil(first * count(sampled)) });
        }
        for name in missing {
            let full = match self.target {
                Target::Utilization(percent) => {
                    requests.get(&name).copied().unwrap_or_default() * i64::from(percent.max(100)) / 100
                }
                Target::Average(value) => value,
            };
            used.insert(name, if first < 1.0 { full } else { 0 });
        }
        if with_unready {
            used.extend(unready.into_iter().map(|name| (name, 0)));
        }
        let ratio = self.ratio(&used, &requests)?;
        if near(ratio) || (first < 1.0) != (ratio < 1.0) {
            return answer(self.current);
        }
        let replicas = ceil(ratio * count(used.len()));
        let against = (ratio < 1.0 && replicas > self.current) || (ratio > 1.0 && replicas < self.current);
        answer(if against { self.current } else { replicas })
    }

    fn ratio(&self, used: &HashMap<String, i64>, requests: &HashMap<String, i64>) -> Result<f64, String> {
        let sum: i64 = used.values().sum();
        let wanted = match self.target {
            Target::Utilization(percent) => {
                let asked: i64 = used.keys().filter_map(|name| requests.get(name)).sum();
                asked as f64 * f64::from(percent) / 100.0
            }
            Target::Average(value) => value as f64 * used.len() as f64,
        };
        if wanted <= 0.0 { Err("no metrics returned matched known pods".to_owned()) } else { Ok(sum as f64 / wanted) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "100m"}}}]}, "status": {"phase": "Running"}});
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": if ready { "True" } else { "False" }}]);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn replicas(pods: &[(&str, bool, Option<i64>)], current: i32) -> Result<i32, String> {
        let all: Vec<_> = pods.iter().map(|(name, ready, _)| pod(name, *ready)).collect();
        let tolerance = Tolerance::of(&HorizontalPodAutoscaler::default());
        let samples = pods.iter().filter_map(|(name, _, used)| Some(((*name).to_owned(), (*used)?))).collect();
        let question =
            Question { resource: "cpu", container: None, target: Target::Utilization(50), current, tolerance };
        question.ask(&all, &samples, Timestamp::now()).map(|answer| answer.replicas)
    }

    #[test]
    fn replicas_follow_the_use_of_what_pods_ask_for() {
        assert_eq!(replicas(&[("a", true, Some(100)), ("b", true, Some(100))], 2), Ok(4));
        assert_eq!(replicas(&[("a", true, Some(10)), ("b", true, Some(10))], 2), Ok(1));
        assert_eq!(replicas(&[("a", true, Some(52)), ("b", true, Some(52))], 2), Ok(2), "within the tolerance");
        assert!(replicas(&[("a", true, None)], 1).is_err());
    }

    #[test]
    fn an_autoscaler_may_say_what_is_near_enough_in_each_direction() {
        let hpa = json!({"metadata": {}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "a", "name": "b"},
            "behavior": {"scaleUp": {"tolerance": "10m"}, "scaleDown": {"tolerance": "0.5"}}}});
        let tolerance = Tolerance::of(&serde_json::from_value(hpa).unwrap());
        assert!(tolerance.holds(1.01) && !tolerance.holds(1.02) && tolerance.holds(0.5) && !tolerance.holds(0.49));
        let usual = Tolerance::of(&HorizontalPodAutoscaler::default());
        assert!(usual.holds(1.1) && !usual.holds(1.11) && usual.holds(0.9) && !usual.holds(0.89));
    }

    #[test]
    fn pods_without_a_sample_never_make_the_change_larger() {
        assert_eq!(replicas(&[("a", true, Some(100)), ("b", true, None)], 2), Ok(2));
        assert_eq!(replicas(&[("a", true, Some(10)), ("b", true, None)], 2), Ok(2));
        assert_eq!(replicas(&[("a", true, Some(200)), ("b", false, Some(1))], 2), Ok(4));
    }
}
