//! The route table: which backend answers a host and a path. Immutable; a change of the cluster makes a new one.

use super::certificates::Certificates;
use super::path;
use super::settings::Settings;
use parking_lot::RwLock;
use regex::Regex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The table in force. Requests under way keep the one they began with.
#[derive(Debug)]
pub(super) struct Live(RwLock<Arc<Table>>);

impl Live {
    pub(super) fn new(table: Table) -> Self {
        Self(RwLock::new(Arc::new(table)))
    }

    pub(super) fn load(&self) -> Arc<Table> {
        self.0.read().clone()
    }

    pub(super) fn store(&self, table: Table) {
        *self.0.write() = Arc::new(table);
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: HashMap<String, Vec<Path>>,
    /// By what follows the `*.`.
    wildcards: HashMap<String, Vec<Path>>,
    any: Vec<Path>,
    pub(super) certificates: Certificates,
}

/// A path of a host.
#[derive(Debug)]
struct Path {
    matcher: Matcher,
    route: Arc<Route>,
}

#[derive(Debug)]
pub(super) enum Matcher {
    Exact(String),
    /// Whole segments; without a slash at the end, so the root is empty.
    Prefix(String),
    /// Anchored at the start, and the length of what the author wrote.
    Pattern(Regex, usize),
    /// The default backend of an Ingress: whatever no other path takes.
    Rest,
}

/// What is done with a request.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) backend: Arc<Backend>,
    pub(super) settings: Arc<Settings>,
    /// Plain HTTP is sent to HTTPS.
    pub(super) secure: bool,
}

/// The endpoints of a port of a Service.
#[derive(Debug, Default)]
pub(super) struct Backend {
    endpoints: Vec<SocketAddr>,
    /// They speak HTTP/2 without TLS, as the Service's port says.
    h2c: bool,
    next: AtomicUsize,
}

/// A route, and the path to ask for where it is not the request's own.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) route: Arc<Route>,
    pub(super) path: Option<String>,
}

impl Route {
    pub(super) fn speaks_h2(&self) -> bool {
        self.settings.h2_backend || self.backend.h2c
    }
}

impl Backend {
    pub(super) fn new(endpoints: Vec<SocketAddr>) -> Self {
        Self { endpoints, h2c: false, next: AtomicUsize::new(0) }
    }

    pub(super) fn speaking_h2c(self, h2c: bool) -> Self {
        Self { h2c, ..self }
    }

    /// The endpoints, beginning with the one whose turn it is.
    pub(super) fn turn(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let start = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len().max(1);
        self.endpoints.iter().cycle().skip(start).take(self.endpoints.len()).copied()
    }
}

impl Matcher {
    /// Upstream's `Exact`.
    pub(super) fn exact(text: &str) -> Self {
        Self::Exact(canonical(text))
    }

    /// Upstream's `Prefix`: segment by segment.
    pub(super) fn prefix(text: &str) -> Self {
        let mut prefix = canonical(text);
        prefix.truncate(prefix.trim_end_matches('/').len());
        Self::Prefix(prefix)
    }

    /// The longest path goes first, and the exact one of two equally long; defaults go last.
    fn rank(&self) -> (usize, bool) {
        match self {
            Self::Exact(text) => (text.len().max(1), true),
            Self::Prefix(text) => (text.len().max(1), false),
            Self::Pattern(_, length) => ((*length).max(1), false),
            Self::Rest => (0, false),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => text == path,
            Self::Prefix(text) => {
                path.strip_prefix(text.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Pattern(regex, _) => regex.is_match(path),
            Self::Rest => true,
        }
    }
}

/// As requests' paths are compared. Non-ASCII letters are escaped as clients do it.
fn canonical(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() {
            escaped.push(c);
        } else {
            let mut bytes = [0; 4];
            escaped.extend(c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02X}")));
        }
    }
    path::normalize(&escaped).map_or_else(|| escaped.clone(), |path| path.into_owned())
}

impl Table {
    /// Adds a path of a host: empty for every host, `*.` before one for its direct children. Of two equal paths the
    /// first one added counts.
    pub(super) fn add(&mut self, host: &str, matcher: Matcher, route: Arc<Route>) {
        let paths = match (host, host.strip_prefix("*.")) {
            ("", _) => &mut self.any,
            (_, Some(parent)) => self.wildcards.entry(parent.to_ascii_lowercase()).or_default(),
            _ => self.hosts.entry(host.to_ascii_lowercase()).or_default(),
        };
        paths.push(Path { matcher, route });
    }

    /// Puts paths in the order in which they are tried; to be called when all are added.
    pub(super) fn arrange(&mut self) {
        for paths in self.hosts.values_mut().chain(self.wildcards.values_mut()).chain([&mut self.any]) {
            paths.sort_by_key(|path| std::cmp::Reverse(path.matcher.rank()));
        }
    }

    /// The route of a host (lower case, without port) and a normalized path. A host's own paths go before those of a
    /// wildcard, and these before those of every host; only then come default backends, in the same order.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<Hit> {
        let wildcard = host.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
        let levels = || self.hosts.get(host).into_iter().chain(wildcard).chain([&self.any]).flatten();
        let found = levels().find(|entry| !matches!(entry.matcher, Matcher::Rest) && entry.matcher.matches(path));
        let entry = found.or_else(|| levels().find(|entry| matches!(entry.matcher, Matcher::Rest)))?;
        Some(Hit { route: entry.route.clone(), path: rewritten(entry, path) })
    }
}

fn rewritten(entry: &Path, path: &str) -> Option<String> {
    let target = entry.route.settings.rewrite.as_deref()?;
    let Matcher::Pattern(regex, _) = &entry.matcher else { return None };
    let captures = regex.captures(path)?;
    let mut out = String::with_capacity(target.len() + path.len());
    captures.expand(target, &mut out);
    // A target without a slash of its own is still a path.
    if !out.starts_with('/') {
        out.insert(0, '/');
    }
    Some(out)
}

#[cfg(test)]
mod tests;
