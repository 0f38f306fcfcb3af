//! How fast and how steadily a target may be scaled: stabilization windows and rates.

use std::collections::VecDeque;

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler};
use tokio::time::{Duration, Instant};

/// What an autoscaler recommended and did lately; forgotten by a restart, as upstream's is.
#[derive(Default)]
pub(super) struct Past {
    recommended: VecDeque<(Instant, i32)>,
    /// Replicas added (positive) or taken (negative).
    changes: VecDeque<(Instant, i32)>,
}

/// A number of replicas with the reasons of the two conditions that tell of it, where there is something to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bounded {
    pub(super) replicas: i32,
    pub(super) stabilized: Option<(&'static str, &'static str)>,
    pub(super) limited: Option<(&'static str, &'static str)>,
}

struct Rules {
    window: Duration,
    policies: Vec<HPAScalingPolicy>,
    select: String,
}

fn rules(given: Option<&HPAScalingRules>, up: bool) -> Rules {
    let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
    let mut usual = vec![policy("Percent", 100)];
    if up {
        usual.push(policy("Pods", 4));
    }
    let window = given.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(if up { 0 } else { 300 });
    let policies = given.and_then(|rules| rules.policies.clone()).filter(|policies| !policies.is_empty());
    Rules {
        window: Duration::from_secs(u64::try_from(window).unwrap_or_default()),
        policies: policies.unwrap_or(usual),
        select: given.and_then(|rules| rules.select_policy.clone()).unwrap_or_else(|| "Max".to_owned()),
    }
}

const LONGEST: Duration = Duration::from_secs(3600);

impl Past {
    pub(super) fn changed(&mut self, by: i32, now: Instant) {
        self.changes.push_back((now, by));
    }

    /// What `wished` becomes under the autoscaler's behaviour.
    pub(super) fn bound(&mut self, hpa: &HorizontalPodAutoscaler, current: i32, wished: i32, now: Instant) -> Bounded {
        let old = |at: &Instant| now.duration_since(*at) > LONGEST;
        self.recommended.retain(|(at, _)| !old(at));
        self.changes.retain(|(at, _)| !old(at));
        let behavior = hpa.spec.behavior.as_ref();
        let up = rules(behavior.and_then(|behavior| behavior.scale_up.as_ref()), true);
        let down = rules(behavior.and_then(|behavior| behavior.scale_down.as_ref()), false);
        let steady = self.steady(current, wished, &up, &down, now);
        self.recommended.push_back((now, wished));
        let stabilized = match steady.cmp(&wished) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some((
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )),
            std::cmp::Ordering::Less => Some((
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )),
        };
        let (least, most) = (hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas);
        let (replicas, limited) = if steady > current {
            let limit = self.ceiling(current, &up, now).max(current);
            if steady > most.min(limit) && limit < most {
                (
                    limit,
                    Some((
                        "ScaleUpLimit",
                        "the desired replica count is increasing faster than the maximum scale rate",
                    )),
                )
            } else if steady > most {
                (most, Some(("TooManyReplicas", "the desired replica count is more than the maximum replica count")))
            } else {
                (steady, None)
            }
        } else {
            let limit = self.floor(current, &down, now).min(current);
            if steady < least.max(limit) && limit > least {
                (
                    limit,
                    Some((
                        "ScaleDownLimit",
                        "the desired replica count is decreasing faster than the maximum scale rate",
                    )),
                )
            } else if steady < least {
                (least, Some(("TooFewReplicas", "the desired replica count is less than the minimum replica count")))
            } else {
                (steady, None)
            }
        };
        Bounded { replicas, stabilized, limited }
    }

    /// Up to the least and down to the most that was recommended within the windows.
    fn steady(&self, current: i32, wished: i32, up: &Rules, down: &Rules, now: Instant) -> i32 {
        let within = |window: Duration| {
            self.recommended.iter().filter(move |(at, _)| now.duration_since(*at) < window).map(|(_, count)| *count)
        };
        let least = within(up.window).fold(wished, i32::min);
        let most = within(down.window).fold(wished, i32::max);
        current.max(least).min(most)
    }

    fn within(&self, seconds: i32, now: Instant, up: bool) -> i32 {
        let window = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let recent = self.changes.iter().filter(|(at, by)| now.duration_since(*at) < window && (*by > 0) == up);
        recent.map(|(_, by)| by.abs()).sum()
    }

    fn ceiling(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = current - self.within(policy.period_seconds, now, true);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                _ => ceil(f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)),
            }
        });
        choose(&rules.select, limits, true).unwrap_or(current)
    }

    fn floor(&self, current: i32, rules: &Rules, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = current + self.within(policy.period_seconds, now, false);
            match policy.type_.as_str() {
                "Pods" => start - policy.value,
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        choose(&rules.select, limits, false).unwrap_or(current)
    }
}

/// The limit that allows the most or the least change; `None` where no change is allowed.
fn choose(select: &str, limits: impl Iterator<Item = i32>, up: bool) -> Option<i32> {
    match (select, up) {
        ("Disabled", _) => None,
        ("Min", true) | ("Max", false) => limits.min(),
        _ => limits.max(),
    }
}

pub(super) fn ceil(number: f64) -> i32 {
    // Saturates, which is what is wanted of a bound.
    number.ceil() as i32
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hpa(behavior: &Value) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({"metadata": {"name": "h"}, "spec": {"minReplicas": 1, "maxReplicas": 100,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "behavior": behavior}}))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn up_is_bounded_by_rate_and_down_waits_for_the_window() {
        let (hpa, mut past, start) = (hpa(&Value::Null), Past::default(), Instant::now());
        let up = past.bound(&hpa, 2, 50, start);
        assert_eq!((up.replicas, up.limited.map(|(reason, _)| reason)), (6, Some("ScaleUpLimit")));
        past.changed(4, start);
        assert_eq!(past.bound(&hpa, 6, 50, start).replicas, 6, "the rate is used up");
        let later = start + Duration::from_secs(16);
        assert_eq!(past.bound(&hpa, 6, 50, later).replicas, 12);
        let down = past.bound(&hpa, 12, 3, later + Duration::from_secs(60));
        assert_eq!((down.replicas, down.stabilized.map(|(reason, _)| reason)), (12, Some("ScaleDownStabilized")));
        assert_eq!(past.bound(&hpa, 12, 3, later + Duration::from_secs(301)).replicas, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn policies_can_slow_and_forbid_scaling() {
        let slow = hpa(&json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
            "scaleUp": {"selectPolicy": "Disabled"}}));
        let now = Instant::now();
        let down = Past::default().bound(&slow, 10, 1, now);
        assert_eq!((down.replicas, down.limited.map(|(reason, _)| reason)), (9, Some("ScaleDownLimit")));
        assert_eq!(Past::default().bound(&slow, 10, 20, now).replicas, 10);
        assert_eq!(Past::default().bound(&hpa(&Value::Null), 99, 300, now).replicas, 100);
    }
}
