//! The string formats that schemas may name, as `go-openapi/strfmt` checks them.

use super::pattern;
use mini_api::names;
use regex::Regex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Formats of strings; those of other types are numbers' sizes.
const STRINGS: [&str; 25] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
];

/// Whether a format says anything about values of `kind`. Others are published but not checked.
pub(crate) fn is_known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => {
            let name = format.replace('-', "");
            STRINGS.contains(&name.as_str()) || name == "k8slongname"
        }
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether `text` has the format.
pub(crate) fn holds(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && hex(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.contains('.') && ip(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')) && variant(text),
        "uuid5" => is_uuid(text, Some('5')) && variant(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => digits_like(text, &[3, 2, 4]),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "rgbcolor" => is_rgb(text),
        "byte" => is_base64(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "datetime" => mini_api::time::parse(text).is_ok(),
        "k8sshortname" => names::is_dns1123_label(text).is_empty(),
        "k8slongname" => names::is_dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Leading zeros are fine, as they were in Go before 1.17.
fn ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse::<u32>().ok().and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets).into())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match ip(address) {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
        None => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u32>().is_ok_and(|n| n <= most)
}

/// `url.ParseRequestURI`: absolute, or a path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return text == "*" };
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let host = rest.strip_prefix("//").map(|r| r.split(['/', '?', '#']).next().unwrap_or_default());
    named && host.is_none_or(|h| !h.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}']))
}

/// As much of RFC 5322 as people write: a name before an address in angle brackets is allowed.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    let atom = |s: &str, more: &str| {
        !s.is_empty()
            && s.split('.').all(|part| {
                !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || !c.is_ascii() || more.contains(c))
            })
    };
    const ATEXT: &str = "!#$%&'*+-/=?^_`{|}~";
    (quoted || atom(local, ATEXT)) && (atom(domain, ATEXT) || domain.starts_with('[') && domain.ends_with(']'))
}

fn is_hostname(text: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let label = r"[a-zA-Z0-9\p{S}\p{L}]";
        pattern::compile(&format!(
            r"^({label}((-?[a-zA-Z0-9\p{{S}}\p{{L}}]{{0,62}})?)|({label}(([a-zA-Z0-9\-\p{{S}}\p{{L}}]{{0,61}}{label})?)(\.)){{1,}}([a-zA-Z\p{{L}}]){{2,63}})$"
        ))
        .ok()
    });
    text.len() <= 255
        && text.split('.').all(|part| part.len() <= 63)
        && PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|p| p.len() == width && hex(p))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// Thirty-two digits, with or without dashes at their places; `version` is the first digit of the third group.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut rest = text;
    for (i, width) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(width).filter(|(group, _)| hex(group)) else { return false };
        if i == 2 && version.is_some_and(|v| !group.starts_with(v)) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn variant(text: &str) -> bool {
    let digit = text.bytes().filter(|b| *b != b'-').nth(16);
    digit.is_some_and(|d| b"89abAB".contains(&d))
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = text.replace(['-', ' '], "");
    let Some((body, last)) = text.split_at_checked(9) else { return false };
    if last.len() != 1 || !body.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits(body).iter().zip(1..).map(|(d, place)| d * place).sum();
    let last = if last == "X" { Some(10) } else { last.parse::<u32>().ok() };
    last.is_some_and(|last| (sum + 10 * last).is_multiple_of(11))
}

fn is_isbn13(text: &str) -> bool {
    let text = text.replace(['-', ' '], "");
    if text.len() != 13 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits(&text).iter().zip([1, 3].into_iter().cycle()).map(|(d, factor)| d * factor).sum();
    sum.is_multiple_of(10)
}

/// The checksum of Luhn over thirteen to nineteen digits.
fn is_credit_card(text: &str) -> bool {
    let digits = digits(text);
    let sum: u32 = digits
        .iter()
        .rev()
        .zip([1, 2].into_iter().cycle())
        .map(|(d, factor)| if d * factor > 9 { d * factor - 9 } else { d * factor })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}

/// Groups of so many digits, with a dash or a space between them or nothing.
fn digits_like(text: &str, widths: &[usize]) -> bool {
    let mut rest = text;
    for (i, width) in widths.iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix(['-', ' ']).unwrap_or(rest);
        }
        match rest.split_at_checked(*width) {
            Some((group, after)) if group.bytes().all(|b| b.is_ascii_digit()) => rest = after,
            _ => return false,
        }
    }
    rest.is_empty()
}

fn is_rgb(text: &str) -> bool {
    let Some(inside) = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|p| p.parse::<u8>().is_ok())
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// Go's `1h30m`, or Scala's `22 ns`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 32] = [
        "ns",
        "us",
        "µs",
        "ms",
        "s",
        "m",
        "h",
        "nano",
        "nanos",
        "nanosecond",
        "nanoseconds",
        "micro",
        "micros",
        "microsecond",
        "microseconds",
        "milli",
        "millis",
        "millisecond",
        "milliseconds",
        "sec",
        "secs",
        "second",
        "seconds",
        "min",
        "mins",
        "minute",
        "minutes",
        "hr",
        "hour",
        "hours",
        "d",
        "w",
    ];
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_ascii_digit() || c == ' ').unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(end).unwrap_or((after, ""));
        let days = matches!(unit, "day" | "days" | "week" | "weeks" | "wk");
        if number.parse::<f64>().is_err() || !(days || UNITS.contains(&unit)) {
            return false;
        }
        any = true;
        rest = after.trim_start();
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_and_fail() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.01", "10.0.0"),
            ("ipv6", "fd00::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uri", "https://a.b/c?d", "a b"),
            ("email", "A <a@b.c>", "a.b.c"),
            ("hostname", "a-b.example.com", "-a.example.com"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e:00:53"),
            ("uuid", "A987FBC9-4BED-3078-CF07-9141BA07C9F3", "a987"),
            ("uuid4", "57b73598-8764-4ad0-a76a-679bb6640eb1", "57b73598-8764-3ad0-a76a-679bb6640eb1"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4242 4242 4242 4242", "4242424242424241"),
            ("ssn", "111-11-1111", "11-111-1111"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(1, 2,255)", "rgb(1,2,256)"),
            ("byte", "aGk=", "a"),
            ("date", "2026-02-28", "2026-02-30"),
            ("date-time", "2026-02-28T10:00:00Z", "2026-02-28"),
            ("duration", "1h30m", "1x"),
            ("duration", "22 ns", ""),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a.b", "A"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ] {
            assert!(is_known("string", format), "{format}");
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(!is_known("string", "int32") && is_known("integer", "int32") && !is_known("object", "date"));
    }
}
