//! `/metrics` and `/metrics/slis`: upstream's names, in Prometheus' text format.
//!
//! Counting costs a request a map lookup; everything else is found out when somebody asks.

mod process;
mod text;

use crate::body::{self, Body};
use crate::call::{Query, list_prefix};
use crate::{ApiServer, RequestInfo, health, negotiate};
use http::{HeaderMap, Response, StatusCode};
use mini_resources::Registry;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
pub(crate) use text::{Kind, Text};

/// What a request is counted by. Strings are names that exist here: what clients make up is endless.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels {
    pub(crate) verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

/// Stands for whatever has no name here.
const OTHER: &str = "other";
/// Paths that are no API objects and are counted by themselves.
const PATHS: [&str; 9] =
    ["/healthz", "/livez", "/readyz", "/version", "/metrics", "/api", "/apis", "/openapi/v2", "/openapi/v3"];

impl Labels {
    pub(crate) fn of(registry: &Registry, info: &RequestInfo, query: &Query, headers: &HeaderMap) -> Self {
        let mut labels = Self {
            verb: verb(info, headers),
            dry_run: match query.get("dryRun") {
                None => "",
                Some("All") => "All",
                Some(_) => "invalid",
            },
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: "",
            scope: "",
            component: "",
        };
        if !info.resource_request {
            labels.subresource = PATHS.into_iter().find(|path| *path == info.path).unwrap_or_default();
            return labels;
        }
        labels.component = "apiserver";
        let Some(resource) = registry.get(&info.group, &info.version, &info.resource) else {
            OTHER.clone_into(&mut labels.resource);
            return labels;
        };
        labels.group.clone_from(&info.group);
        labels.version.clone_from(&info.version);
        labels.resource.clone_from(&info.resource);
        labels.scope = match info {
            info if !info.name.is_empty() || info.verb == "create" => "resource",
            info if !info.namespace.is_empty() => "namespace",
            _ => "cluster",
        };
        if !info.subresource.is_empty() {
            labels.subresource = resource.subresource(&info.subresource).map_or(OTHER, |found| found.name);
        }
        labels
    }

    fn pairs(&self) -> [(&'static str, &str); 8] {
        [
            ("component", self.component),
            ("dry_run", self.dry_run),
            ("group", &self.group),
            ("resource", &self.resource),
            ("scope", self.scope),
            ("subresource", self.subresource),
            ("verb", self.verb),
            ("version", &self.version),
        ]
    }

    /// What is counted without regard to dry runs.
    fn without_dry_run(&self) -> [(&'static str, &str); 7] {
        let [component, _, group, resource, scope, subresource, verb, version] = self.pairs();
        [component, group, resource, scope, subresource, verb, version]
    }
}

/// The verb as upstream's metrics have it.
fn verb(info: &RequestInfo, headers: &HeaderMap) -> &'static str {
    if info.resource_request && matches!(&*info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy") {
        return "CONNECT";
    }
    match &*info.verb {
        "get" => "GET",
        "list" if info.resource_request => "LIST",
        "watch" if info.resource_request => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if negotiate::content_type(headers) == crate::verbs::APPLY => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => OTHER,
    }
}

/// Upper bounds of upstream's buckets: seconds, and bytes.
const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const BYTES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// How often something was at most each of `N` bounds.
struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    counts: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64; N]) -> Self {
        Self { bounds, counts: [0; N], count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        let first = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(first) {
            *count += 1;
        }
        self.count += 1;
        self.sum += value;
    }
}

struct Series {
    codes: Vec<(u16, u64)>,
    seconds: Histogram<23>,
    bytes: Histogram<7>,
}

/// Counters of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<HashMap<Labels, Series>>,
    /// Long-running requests under way.
    running: Mutex<BTreeMap<Labels, u64>>,
    /// Requests of components of this process, by method and code: what would be those of their REST clients.
    inside: Mutex<BTreeMap<(String, u16), u64>>,
    checks: Mutex<BTreeMap<(&'static str, &'static str, bool), u64>>,
    handshakes_failed: AtomicU64,
}

impl Metrics {
    pub(crate) fn count(&self, labels: Labels, code: u16, took: Duration, bytes: Option<u64>) {
        let mut requests = self.requests.lock();
        let series = requests.entry(labels).or_insert_with(|| Series {
            codes: Vec::new(),
            seconds: Histogram::new(&SECONDS),
            bytes: Histogram::new(&BYTES),
        });
        match series.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => series.codes.push((code, 1)),
        }
        series.seconds.observe(took.as_secs_f64());
        if let Some(bytes) = bytes {
            #[allow(clippy::cast_precision_loss, reason = "sizes of answers are far below 2^52")]
            series.bytes.observe(bytes as f64);
        }
    }

    pub(crate) fn count_inside(&self, method: &http::Method, code: u16) {
        *self.inside.lock().entry((method.as_str().to_owned(), code)).or_default() += 1;
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn checked(&self, name: &'static str, endpoint: &'static str, well: bool) {
        *self.checks.lock().entry((name, endpoint, well)).or_default() += 1;
    }
}

/// Counts a long-running request while it is held.
pub(crate) struct Running {
    server: Arc<ApiServer>,
    labels: Labels,
}

impl Running {
    pub(crate) fn new(server: &Arc<ApiServer>, labels: &Labels) -> Self {
        let labels = Labels { dry_run: "", ..labels.clone() };
        *server.metrics.running.lock().entry(labels.clone()).or_default() += 1;
        Self { server: server.clone(), labels }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(count) = self.server.metrics.running.lock().get_mut(&self.labels) {
            *count -= 1;
        }
    }
}

/// Answers a path of metrics; None if it is none.
pub(crate) fn serve(server: &ApiServer, path: &str) -> Option<Response<Body>> {
    let mut out = Text::default();
    match path {
        "/metrics" => write_all(server, &mut out),
        "/metrics/slis" => write_checks(server, &mut out),
        _ => return None,
    }
    Some(body::response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out.finish()))
}

fn write_all(server: &ApiServer, out: &mut Text) {
    write_requests(server, out);
    let (reading, mutating) = server.flow.in_flight();
    out.family(
        "apiserver_current_inflight_requests",
        Kind::Gauge,
        "Requests being answered, other than long-running ones.",
    );
    out.sample(&[("request_kind", "mutating")], mutating as u64);
    out.sample(&[("request_kind", "readOnly")], reading as u64);
    server.flow.write_metrics(out);
    if let Some(audit) = &server.audit {
        audit.write_metrics(out);
    }
    write_objects(server, out);
    out.family(
        "apiserver_tls_handshake_errors_total",
        Kind::Counter,
        "Connections that ended before their TLS handshake did.",
    );
    out.sample(&[], server.metrics.handshakes_failed.load(Ordering::Relaxed));
    out.family("rest_client_requests_total", Kind::Counter, "Requests of the components of this process.");
    for ((method, code), count) in &*server.metrics.inside.lock() {
        let code = code.to_string();
        out.sample(&[("code", &code), ("host", "in-process"), ("method", method)], *count);
    }
    out.family("kubernetes_build_info", Kind::Gauge, "What runs.");
    let (minor, version) = (health::minor(), health::git_version());
    out.sample(&[("git_version", &version), ("major", "1"), ("minor", minor)], 1_u64);
    process::write(out);
    if let Some(more) = server.more_metrics.get() {
        out.append(&more());
    }
}

fn write_requests(server: &ApiServer, out: &mut Text) {
    let requests = server.metrics.requests.lock();
    let mut sorted: Vec<_> = requests.iter().collect();
    sorted.sort_by_key(|(labels, _)| *labels);
    out.family("apiserver_request_total", Kind::Counter, "Requests, by what they asked for and the answer's code.");
    for (labels, series) in &sorted {
        for (code, count) in &series.codes {
            let code = code.to_string();
            out.sample(&[&[("code", code.as_str())], labels.pairs().as_slice()].concat(), *count);
        }
    }
    let help = "Time until an answer began.";
    out.family("apiserver_request_duration_seconds", Kind::Histogram, help);
    for (labels, series) in &sorted {
        out.histogram(&labels.pairs(), &series.seconds);
    }
    out.family("apiserver_response_sizes", Kind::Histogram, "Bytes of answers that were whole when they began.");
    for (labels, series) in &sorted {
        if series.bytes.count > 0 && labels.dry_run.is_empty() {
            out.histogram(&labels.without_dry_run(), &series.bytes);
        }
    }
    drop(requests);
    out.family("apiserver_longrunning_requests", Kind::Gauge, "Watches, logs and other streams under way.");
    for (labels, count) in &*server.metrics.running.lock() {
        out.sample(&labels.without_dry_run(), *count);
    }
}

fn write_objects(server: &ApiServer, out: &mut Text) {
    let snapshot = server.store.snapshot();
    // Versions of one custom kind are one resource, and so are the kinds that share their storage.
    let mut counted = BTreeSet::new();
    let mut resources = Vec::new();
    for row in server.registry.current().iter().filter(|row| row.stored()) {
        if counted.insert(row.storage.clone()) {
            let count = snapshot.count(&list_prefix(row, ""), None);
            resources.push((row.group_resource(), row.group.clone(), row.plural.clone(), count as u64));
        }
    }
    out.family("apiserver_storage_objects", Kind::Gauge, "Stored objects by kind.");
    for (name, _, _, count) in &resources {
        out.sample(&[("resource", name)], *count);
    }
    out.family("apiserver_resource_objects", Kind::Gauge, "Stored objects by group and kind.");
    for (_, group, plural, count) in &resources {
        out.sample(&[("group", group), ("resource", plural)], *count);
    }
}

fn write_checks(server: &ApiServer, out: &mut Text) {
    out.family("kubernetes_healthcheck", Kind::Gauge, "Whether a health check passes now.");
    for (name, endpoint, well) in health::gauges(server) {
        out.sample(&[("name", name), ("type", endpoint)], u64::from(well));
    }
    out.family("kubernetes_healthchecks_total", Kind::Counter, "How often health checks passed and failed.");
    for ((name, endpoint, well), count) in &*server.metrics.checks.lock() {
        let status = if *well { "success" } else { "error" };
        out.sample(&[("name", name), ("status", status), ("type", endpoint)], *count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(registry: &Registry, method: &str, target: &str) -> Labels {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(&method.parse().unwrap(), path, &query);
        Labels::of(registry, &info, &query, &HeaderMap::new())
    }

    #[test]
    fn what_clients_make_up_makes_no_series() {
        let registry = Registry::builtin();
        let mut series = BTreeSet::new();
        for n in 0..100 {
            for (method, path) in [
                ("GET".to_owned(), format!("/nowhere/{n}")),
                (format!("M{n}"), "/version".to_owned()),
                (format!("M{n}"), "/api/v1/pods".to_owned()),
                ("GET".to_owned(), format!("/apis/group{n}/v1/things")),
                ("GET".to_owned(), format!("/api/v{n}9/pods")),
                ("GET".to_owned(), format!("/api/v1/namespaces/a/pods/b/sub{n}")),
                ("GET".to_owned(), format!("/api/v1/namespaces/ns{n}/pods/name{n}?dryRun={n}")),
            ] {
                series.insert(of(&registry, &method, &path));
            }
        }
        assert!(series.len() <= 7, "{series:?}");
    }

    #[test]
    fn labels_are_upstreams() {
        let registry = Registry::builtin();
        for (method, target, verb, scope, subresource) in [
            ("GET", "/api/v1/pods", "LIST", "cluster", ""),
            ("GET", "/api/v1/namespaces/a/pods?watch=1", "WATCH", "namespace", ""),
            ("POST", "/api/v1/namespaces/a/pods", "POST", "resource", ""),
            ("PUT", "/api/v1/namespaces/a/pods/p/status", "PUT", "resource", "status"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec", "CONNECT", "resource", "exec"),
            ("DELETE", "/api/v1/namespaces/a/pods", "DELETECOLLECTION", "namespace", ""),
            ("GET", "/healthz", "GET", "", "/healthz"),
        ] {
            let labels = of(&registry, method, target);
            assert_eq!((labels.verb, labels.scope, labels.subresource), (verb, scope, subresource), "{target}");
        }
        assert_eq!(of(&registry, "POST", "/api/v1/namespaces/a/pods?dryRun=All").dry_run, "All");
    }

    #[test]
    fn a_value_counts_where_it_is_at_most_the_bound() {
        let mut histogram = Histogram::new(&BYTES);
        for value in [1.0, 1e3, 1001.0, 2e9] {
            histogram.observe(value);
        }
        assert_eq!((histogram.counts, histogram.count), ([2, 1, 0, 0, 0, 0, 0], 4));
    }
}
