//! Image names: `busybox` is `docker.io/library/busybox:latest`.

/// The full name with registry and tag, or `None` when `name` is no image reference.
pub(crate) fn normalize(name: &str) -> Option<String> {
    let parts = Parts::parse(name)?;
    let mut full = format!("{}/{}", parts.domain, parts.path);
    match (&parts.tag, &parts.digest) {
        (None, None) => full.push_str(":latest"),
        (tag, digest) => {
            if let Some(tag) = tag {
                full = format!("{full}:{tag}");
            }
            if let Some(digest) = digest {
                full = format!("{full}@{digest}");
            }
        }
    }
    Some(full)
}

/// `name` with `:latest` where it has neither tag nor digest; `None` when it is no reference (`InvalidImageName`).
pub(crate) fn with_default_tag(name: &str) -> Option<String> {
    let parts = Parts::parse(name)?;
    let bare = parts.tag.is_none() && parts.digest.is_none();
    Some(if bare { format!("{name}:latest") } else { name.to_owned() })
}

/// The registry a reference is pulled from, as credentials name it.
pub(crate) fn registry(name: &str) -> Option<(String, String)> {
    Parts::parse(name).map(|p| (p.domain, p.path))
}

struct Parts {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Parts {
    fn parse(name: &str) -> Option<Self> {
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        if let Some(digest) = digest {
            let (algorithm, hex) = digest.split_once(':')?;
            let fine = !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
            if !fine {
                return None;
            }
        }
        // A colon after the last slash is a tag; one before it is a port.
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (rest, tag) = match rest.get(slash..)?.split_once(':') {
            Some((last, tag)) => (rest.get(..slash + last.len())?, Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            let start = tag.bytes().next()?;
            let fine = tag.len() <= 128
                && (start.is_ascii_alphanumeric() || start == b'_')
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if !fine {
                return None;
            }
        }
        let (domain, path) = match rest.split_once('/') {
            Some((d, p)) if d.contains(['.', ':']) || d == "localhost" || d.chars().any(char::is_uppercase) => {
                (d.to_owned(), p.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), rest.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{rest}")),
        };
        let domain = if domain == "index.docker.io" { "docker.io".to_owned() } else { domain };
        let fine = is_domain(&domain) && path.split('/').all(is_component) && domain.len() + path.len() < 255;
        fine.then(|| Self { domain, path, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(']') || domain.ends_with(port) => (host, Some(port)),
        _ => (domain, None),
    };
    let host_fine = !host.is_empty()
        && (host.starts_with('[')
            || host.split('.').all(|l| {
                !l.is_empty()
                    && !l.starts_with('-')
                    && !l.ends_with('-')
                    && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            }));
    host_fine && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, joined by `.`, `_`, `__` or hyphens.
fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(alphanumeric) || !part.ends_with(alphanumeric) {
        return false;
    }
    part.split(alphanumeric).all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let hex = "a".repeat(64);
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("mini.local/mini:abc", "mini.local/mini:abc"),
            ("127.0.0.1:5000/a/b-c__d:v1.2", "127.0.0.1:5000/a/b-c__d:v1.2"),
        ] {
            assert_eq!(normalize(short).as_deref(), Some(full));
        }
        assert_eq!(normalize(&format!("x@sha256:{hex}")), Some(format!("docker.io/library/x@sha256:{hex}")));
        assert_eq!(with_default_tag("x"), Some("x:latest".into()));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in ["", "UPPER", "a b", "x:", "x@sha256:12", "-x", "a//b", "http://x", "x:ta g", "a..b"] {
            assert_eq!(normalize(bad), None, "{bad}");
        }
    }
}
