//! What annotations ask for: those of the nginx controller that users rely on most.

use std::collections::BTreeMap;
use std::time::Duration;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const CONNECT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);

/// How one Ingress wants its requests treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Plain HTTP is sent to HTTPS where there is a certificate.
    pub(super) redirect: bool,
    /// … and also where there is none.
    pub(super) force_redirect: bool,
    /// Paths are regular expressions.
    pub(super) patterns: bool,
    /// What replaces the path; groups are written as `${1}`.
    pub(super) rewrite: Option<String>,
    /// Endpoints speak TLS; their certificates are not checked.
    pub(super) tls_backend: bool,
    /// Endpoints speak HTTP/2, as gRPC needs it.
    pub(super) h2_backend: bool,
    pub(super) connect: Duration,
    /// How long a backend may say nothing.
    pub(super) silence: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redirect: true,
            force_redirect: false,
            patterns: false,
            rewrite: None,
            tls_backend: false,
            h2_backend: false,
            connect: CONNECT,
            silence: SILENCE,
        }
    }
}

impl Settings {
    /// Reads the annotations of an Ingress; what cannot be honoured is said in sentences.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut complaints = Vec::new();
        for (name, value) in annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))) {
            if let Err(wanted) = settings.set(name, value.trim()) {
                complaints.push(format!("annotation {PREFIX}{name}: {value:?} is not served; {wanted}"));
            }
        }
        (settings, complaints)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "ssl-redirect" => self.redirect = flag(value)?,
            "force-ssl-redirect" => self.force_redirect = flag(value)?,
            "use-regex" => self.patterns = flag(value)?,
            "rewrite-target" if value.is_empty() => {}
            "rewrite-target" => self.rewrite = Some(groups(value)),
            "backend-protocol" => {
                (self.tls_backend, self.h2_backend) = match value.to_ascii_uppercase().as_str() {
                    "HTTP" | "" => (false, false),
                    "HTTPS" => (true, false),
                    "GRPC" => (false, true),
                    "GRPCS" => (true, true),
                    _ => return Err("backends are spoken to by HTTP, HTTPS, GRPC or GRPCS"),
                }
            }
            "proxy-connect-timeout" => self.connect = seconds(value)?,
            // Either direction keeps the exchange alive here, so the longer wish counts.
            "proxy-read-timeout" | "proxy-send-timeout" => self.silence = self.silence.max(seconds(value)?),
            // What else there is either has no counterpart here or is no limit that we set.
            _ => {}
        }
        Ok(())
    }
}

fn flag(value: &str) -> Result<bool, &'static str> {
    value.parse().map_err(|_| "it must be \"true\" or \"false\"")
}

fn seconds(value: &str) -> Result<Duration, &'static str> {
    let number = value.trim_end_matches('s').parse().ok().filter(|seconds| (1..=86400).contains(seconds));
    number.map(Duration::from_secs).ok_or("it must be a number of seconds")
}

/// nginx's `$1` ends with its digit, where Rust's takes letters after it for part of the name.
fn groups(target: &str) -> String {
    let mut out = String::with_capacity(target.len() + 4);
    let mut rest = target.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('$', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str(&format!("${{{digit}}}"));
                rest.next();
            }
            // Its other variables have no counterpart: they stay as they are written.
            ('$', _) => out.push_str("$$"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        Settings::read(&pairs.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect())
    }

    #[test]
    fn annotations_are_read() {
        assert_eq!(read(&[("whitelist-source-range", "x")]), (Settings::default(), vec![]));
        let (settings, complaints) = read(&[
            ("ssl-redirect", "false"),
            ("rewrite-target", "/a/$2x$host"),
            ("backend-protocol", "https"),
            ("proxy-connect-timeout", "7"),
            ("proxy-read-timeout", "3600"),
            ("proxy-send-timeout", "10s"),
        ]);
        assert_eq!(complaints, Vec::<String>::new());
        assert!(!settings.redirect && settings.tls_backend);
        assert_eq!(settings.rewrite.as_deref(), Some("/a/${2}x$$host"));
        assert_eq!((settings.connect.as_secs(), settings.silence.as_secs()), (7, 3600));
        for (value, both) in [("GRPC", (false, true)), ("grpcs", (true, true)), ("HTTPS", (true, false))] {
            let settings = read(&[("backend-protocol", value)]).0;
            assert_eq!((settings.tls_backend, settings.h2_backend), both, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_said() {
        let (settings, complaints) = read(&[("backend-protocol", "AJP"), ("use-regex", "yes")]);
        assert_eq!(settings, Settings::default());
        assert_eq!(complaints.len(), 2);
        assert!(complaints[0].contains("backend-protocol: \"AJP\" is not served"), "{complaints:?}");
    }
}
