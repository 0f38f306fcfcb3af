//! Names, labels and identifiers: the rules of `k8s.io/apimachinery/pkg/util/validation`, in its words.
//!
//! Each check answers a list of messages, empty when the value is good, so that a caller can attach them to its own
//! field path.

const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// Longest DNS label and longest label value.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// `must be no more than N bytes`.
#[must_use]
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    let examples = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    let open = if examples.is_empty() { " (".to_owned() } else { format!(" (e.g. {examples}") };
    format!("{message}{open}regex used for validation is '{format}')")
}

/// Whether `s` is not empty, all of it satisfies `inner`, and both ends satisfy `edge`.
fn shaped(s: &str, inner: impl Fn(u8) -> bool, edge: impl Fn(u8) -> bool) -> bool {
    let b = s.as_bytes();
    matches!((b.first(), b.last()), (Some(&a), Some(&z)) if edge(a) && edge(z)) && b.iter().all(|&c| inner(c))
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn label_shaped(s: &str) -> bool {
    shaped(s, |c| lower_alnum(c) || c == b'-', lower_alnum)
}

fn qualified_shaped(s: &str) -> bool {
    shaped(s, |c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'), |c| c.is_ascii_alphanumeric())
}

/// RFC 1123 label: namespaces, container names.
#[must_use]
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !label_shaped(value) {
        errors.push(regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character",
            LABEL_FMT,
            &["my-name", "123-abc"],
        ));
    }
    errors
}

/// RFC 1123 subdomain: most object names.
#[must_use]
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !value.split('.').all(label_shaped) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN_FMT,
            &["example.com"],
        ));
    }
    errors
}

/// `*.` before a subdomain.
#[must_use]
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(label_shaped)) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_FMT}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// RFC 1035 label, which starts with a letter: Service names.
#[must_use]
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !(label_shaped(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// `[prefix/]name`: label and annotation keys, finalizers, resource names.
#[must_use]
pub fn is_qualified_name(value: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(is_dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(MESSAGE, QUALIFIED_FMT, EXAMPLES)
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !qualified_shaped(name) {
        errors.push(format!("name part {}", regex_error(MESSAGE, QUALIFIED_FMT, EXAMPLES)));
    }
    errors
}

/// The value of a label; empty is good.
#[must_use]
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(too_long(LABEL_MAX));
    }
    if !value.is_empty() && !qualified_shaped(value) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            &format!("({QUALIFIED_FMT})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A key of a ConfigMap or Secret.
#[must_use]
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(too_long(SUBDOMAIN_MAX));
    }
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if !shaped(value, good, good) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(directory_prefix(value));
    errors
}

fn directory_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        v if v.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable of a container: any printable ASCII but `=`.
#[must_use]
pub fn is_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|c| (b' '..=b'~').contains(&c) && c != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The name of a port (`IANA_SVC_NAME`).
#[must_use]
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(too_long(15));
    }
    if value.is_empty() || !value.bytes().all(|c| lower_alnum(c) || c == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port number: 1 to 65535.
#[must_use]
pub fn is_port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// `must be between LO and HI, inclusive`.
#[must_use]
pub fn in_range(value: i64, lo: i64, hi: i64) -> Vec<String> {
    if (lo..=hi).contains(&value) { Vec::new() } else { vec![format!("must be between {lo} and {hi}, inclusive")] }
}

/// An HTTP header's name.
#[must_use]
pub fn is_http_header_name(value: &str) -> Vec<String> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    if shaped(value, good, good) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage: digits and `%`.
#[must_use]
pub fn is_percent(value: &str) -> Vec<String> {
    if value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A name that may be one segment of a URL path (`NameIsDNSSubdomain` does not apply): RBAC roles and bindings.
#[must_use]
pub fn is_path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        v => ['/', '%'].iter().filter(|c| v.contains(**c)).map(|c| format!("may not contain '{c}'")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            is_dns1123_subdomain("Bad_"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            is_label_value("a b"),
            ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
              for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
        );
        assert_eq!(is_qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(is_config_map_key(".."), ["must not be '..'"]);
        assert_eq!(is_port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(is_path_segment("a/b"), ["may not contain '/'"]);
    }

    #[test]
    fn lengths_are_bounded() {
        let label = "a".repeat(63);
        assert!(is_dns1123_label(&label).is_empty());
        assert_eq!(is_dns1123_label(&format!("{label}a")), ["must be no more than 63 bytes"]);
        assert!(!is_port_name(&"a".repeat(16)).is_empty());
    }

    fn agrees(pattern: &str, value: &str, check: fn(&str) -> Vec<String>) {
        let regex = Regex::new(&format!("^(?:{pattern})$")).expect("pattern");
        assert_eq!(regex.is_match(value) && value.len() <= 63, check(value).is_empty(), "{value:?} against {pattern}");
    }

    proptest! {
        /// The checks are written by hand; the regular expression in each message is the reference.
        #[test]
        fn checks_agree_with_the_regular_expressions(value in "[-a-zA0-9._%*\u{e9}]{0,6}") {
            agrees(LABEL_FMT, &value, is_dns1123_label);
            agrees(SUBDOMAIN_FMT, &value, is_dns1123_subdomain);
            agrees(QUALIFIED_FMT, &value, is_qualified_name);
            agrees(&format!("({QUALIFIED_FMT})?"), &value, is_label_value);
            agrees("[a-z]([-a-z0-9]*[a-z0-9])?", &value, is_dns1035_label);
            agrees("[0-9]+%", &value, is_percent);
            agrees(&format!("\\*\\.{SUBDOMAIN_FMT}"), &value, is_wildcard_dns1123_subdomain);
        }
    }
}
