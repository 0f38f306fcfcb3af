//! Which time of a schedule is due.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use mini_api::cron::Schedule;

/// More missed times than this are worth a warning.
const MANY: i64 = 100;

/// What became due since a time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) latest: Option<Timestamp>,
    pub(super) too_many: bool,
}

/// From when on times count: the last one served, or the CronJob's creation, but not before its deadline.
pub(super) fn since(cron: &CronJob, schedule: &Schedule, status: &CronJobStatus, now: Timestamp) -> Timestamp {
    let last = status.last_schedule_time.as_ref().or(cron.metadata.creation_timestamp.as_ref());
    let since = last.map_or(now, |time| time.0);
    let deadline = cron.spec.starting_deadline_seconds;
    // Times that count from each other would move with it.
    let deadline = deadline.filter(|_| !matches!(schedule, Schedule::Every(_)));
    let deadline = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    deadline.map_or(since, |deadline| since.max(deadline))
}

/// The last time due in `(since, now]`. A long gap is not walked through: from its spacing one lands near its end.
pub(super) fn latest(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Due {
    let after = |at: Timestamp| schedule.next(at, zone).filter(|next| *next <= now);
    let Some(first) = after(since) else { return Due::default() };
    let Some(second) = after(first) else { return Due { latest: Some(first), too_many: false } };
    let spacing = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / spacing + 1;
    let near = first.checked_add(SignedDuration::from_secs((missed - 2).max(0) * spacing)).unwrap_or(first);
    // Uneven schedules may have nothing near the end; then there is only the long way.
    let mut latest = after(near).unwrap_or(second);
    while let Some(next) = after(latest) {
        latest = next;
    }
    Due { latest: Some(latest), too_many: missed > MANY }
}

/// How long it is to the next time, when `found` was due since `since`.
pub(super) fn next(
    schedule: &Schedule,
    zone: &TimeZone,
    (since, found): (Timestamp, &Due),
    now: Timestamp,
) -> Option<Duration> {
    // Where times are counted from each other and not read from the clock, the last one tells the next.
    let from = if matches!(schedule, Schedule::Every(_)) { found.latest.unwrap_or(since) } else { now };
    Duration::try_from(schedule.next(from, zone)?.duration_since(now)).ok()
}

/// Whether a time is longer ago than the CronJob allows.
pub(super) fn is_too_late(spec: &CronJobSpec, due: Timestamp, now: Timestamp) -> bool {
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    deadline.is_some_and(|deadline| due.checked_add(deadline).is_ok_and(|last| last < now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_missed_time_counts() {
        let find = |schedule: &str, since: &str, now: &str| {
            latest(&Schedule::parse(schedule).unwrap(), &TimeZone::UTC, at(since), at(now))
        };
        let hourly = "0 * * * *";
        assert_eq!(find(hourly, "2026-01-01T00:00:00Z", "2026-01-01T00:59:59Z"), Due::default());
        let one = find(hourly, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        assert_eq!((one.latest, one.too_many), (Some(at("2026-01-01T01:00:00Z")), false));
        let three = find(hourly, "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z");
        assert_eq!(three.latest, Some(at("2026-01-01T03:00:00Z")));
        let years = find("* * * * *", "2020-01-01T00:00:30Z", "2026-01-01T03:30:00Z");
        assert_eq!((years.latest, years.too_many), (Some(at("2026-01-01T03:30:00Z")), true));
        // Weekdays only: the spacing of the first two does not hold over the weekend.
        let uneven = find("0 10 * * 1-5", "2026-01-01T00:00:00Z", "2026-01-11T12:00:00Z");
        assert_eq!(uneven.latest, Some(at("2026-01-09T10:00:00Z")));
    }
}
