//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 in UTC, to the second or the microsecond.

use jiff::Timestamp;

/// Now, to the second: `2026-01-02T03:04:05Z`.
#[must_use]
pub fn now() -> String {
    seconds(Timestamp::now())
}

/// Now, to the microsecond: `2026-01-02T03:04:05.000006Z`.
#[must_use]
pub fn now_micro() -> String {
    micro(Timestamp::now())
}

#[must_use]
pub fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[must_use]
pub fn micro(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 with any number of fractional digits and any offset.
///
/// # Errors
/// A message in the words of Go's `time.Parse`.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let refused = || format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as a time");
    if is_rfc3339(text.as_bytes()) { text.parse().map_err(|_| refused()) } else { Err(refused()) }
}

/// Shape only; [`Timestamp`] takes more than RFC 3339 has.
fn is_rfc3339(b: &[u8]) -> bool {
    let shape = |b: &[u8], pattern: &[u8]| {
        b.len() == pattern.len()
            && b.iter().zip(pattern).all(|(c, p)| if *p == b'0' { c.is_ascii_digit() } else { c == p })
    };
    let Some((head, mut tail)) = b.split_at_checked(19) else { return false };
    if let Some(fraction) = tail.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        tail = fraction.get(digits..).unwrap_or_default();
        if digits == 0 {
            return false;
        }
    }
    shape(head, b"0000-00-00T00:00:00") && (tail == b"Z" || shape(tail, b"+00:00") || shape(tail, b"-00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        let at = parse("2026-01-02T05:04:05.6789+02:00").expect("time");
        assert_eq!(seconds(at), "2026-01-02T03:04:05Z");
        assert_eq!(micro(at), "2026-01-02T03:04:05.678900Z");
        for bad in ["", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z", "now"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("x").expect_err("x").starts_with("parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\""));
    }

    proptest! {
        #[test]
        fn micro_times_round_trip(micros in 0_i64..253_402_207_200_000_000) {
            let at = Timestamp::from_microsecond(micros).expect("in range");
            prop_assert_eq!(parse(&micro(at)), Ok(at));
            prop_assert_eq!(parse(&seconds(at)).map(|t| t.as_second()), Ok(at.as_second()));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?(Z|[+-][0-9]{2}:[0-9]{2})") {
            if let Ok(at) = parse(&text) {
                prop_assert_eq!(parse(&micro(at)).map(|t| t.as_second()), Ok(at.as_second()));
            }
        }
    }
}
