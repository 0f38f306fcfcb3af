//! When pods ended, and how long to wait before the next.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The wait after a first failure; doubled by each further one.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// When a pod ended: its last container's end, else when it stopped being ready, else when it was told to go.
pub(super) fn finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ends: Option<Vec<Timestamp>> = containers
        .iter()
        .map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
        .collect();
    if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
        return Some(last);
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "False");
    let unready = unready.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
    };
    unready.or_else(deleted).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// How long after the last of `failures` the next pod may be made, from `now` on.
pub(super) fn back_off(failures: u32, last: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let delay = FIRST.saturating_mul(1 << failures.checked_sub(1)?.min(16)).min(LONGEST);
    left(last?, i64::try_from(delay.as_secs()).ok()?, now)
}

/// What is left of `seconds` after `start`; `None` once they are over.
pub(super) fn left(start: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let left = SignedDuration::from_secs(seconds).checked_sub(now.duration_since(start))?;
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_ten_seconds_to_ten_minutes() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let last = Some(at("2026-01-01T00:00:00Z"));
        let wait = |failures| back_off(failures, last, at("2026-01-01T00:00:04Z")).map(|wait| wait.as_secs());
        assert_eq!((wait(0), wait(1), wait(2), wait(3), wait(40)), (None, Some(6), Some(16), Some(36), Some(596)));
        assert_eq!(back_off(1, last, at("2026-01-01T00:00:10Z")), None);
    }
}
