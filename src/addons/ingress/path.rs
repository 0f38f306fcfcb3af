//! Paths of requests in one canonical form, so that what matches does not depend on how a path is spelt.

use std::borrow::Cow;

/// The path without empty, `.` and `..` segments, with letters unescaped that need no escape; `None` for one that
/// climbs above the root or is no path. A slash at the end stays. The escape of a slash stays an escape.
pub(super) fn normalize(path: &str) -> Option<Cow<'_, str>> {
    if !path.starts_with('/') {
        return None;
    }
    let plain = !path.contains('%') && !path.contains("//") && !path.contains("/.");
    if plain { Some(Cow::Borrowed(path)) } else { Some(Cow::Owned(resolve(&unescape(path))?)) }
}

fn resolve(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()?),
            segment => segments.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if directory {
        resolved.push('/');
    }
    Some(resolved)
}

/// Unescapes what RFC 3986 calls unreserved, and writes the other escapes in capitals.
fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let code = after.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.and_then(|hex| Some((hex, u8::from_str_radix(hex, 16).ok()?))) {
            Some((_, byte)) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            Some((hex, _)) => {
                out.push('%');
                out.push_str(&hex.to_ascii_uppercase());
            }
            None => out.push('%'),
        }
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_has_one_form() {
        for (path, form) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/%61/%2e%2E/b%2fc%2Fd", "/b%2Fc%2Fd"),
            ("/.well-known/x", "/.well-known/x"),
            ("/100%", "/100%"),
            ("/a%zz%4", "/a%zz%4"),
            ("/%c3%a9", "/%C3%A9"),
        ] {
            assert_eq!(normalize(path).as_deref(), Some(form), "{path}");
        }
        for bad in ["/..", "/a/../../b", "/%2e%2e/", "*", ""] {
            assert_eq!(normalize(bad), None, "{bad}");
        }
    }
}
