//! `/metrics`: a few of upstream's names, in Prometheus' text format.

use crate::body::{self, Body};
use crate::{ApiServer, RequestInfo};
use http::{Response, StatusCode};
use mini_resources::Registry;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a request is counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Labels {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) code: u16,
}

/// Stands for whatever has no name here: what clients make up is endless.
const OTHER: &str = "other";

impl Labels {
    /// Of names that exist alone.
    pub(crate) fn of(registry: &Registry, info: &RequestInfo) -> Self {
        let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
        let others = ["head", "post", "put", "options", "connect", "trace"];
        let known =
            verbs.contains(&info.verb.as_str()) || !info.resource_request && others.contains(&info.verb.as_str());
        let mut labels = Self {
            verb: if known { info.verb.to_uppercase() } else { OTHER.to_owned() },
            group: String::new(),
            version: String::new(),
            resource: String::new(),
            subresource: String::new(),
            code: 0,
        };
        if !info.resource_request {
            return labels;
        }
        let Some(resource) = registry.get(&info.group, &info.version, &info.resource) else {
            OTHER.clone_into(&mut labels.resource);
            return labels;
        };
        labels.group.clone_from(&info.group);
        labels.version.clone_from(&info.version);
        labels.resource.clone_from(&info.resource);
        let served = info.subresource.is_empty() || resource.subresource(&info.subresource).is_some();
        labels.subresource = if served { info.subresource.clone() } else { OTHER.to_owned() };
        labels
    }
}

#[derive(Default)]
struct Count {
    requests: u64,
    seconds: f64,
}

/// Counters of one server.
pub(crate) struct Metrics {
    started: SystemTime,
    requests: Mutex<BTreeMap<Labels, Count>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { started: SystemTime::now(), requests: Mutex::default() }
    }
}

impl Metrics {
    pub(crate) fn count(&self, labels: Labels, took: Duration) {
        let mut requests = self.requests.lock();
        let count = requests.entry(labels).or_default();
        count.requests += 1;
        count.seconds += took.as_secs_f64();
    }
}

pub(crate) fn serve(server: &ApiServer) -> Response<Body> {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write_all(server, &mut out);
    body::response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", out)
}

fn write_all(server: &ApiServer, out: &mut String) -> std::fmt::Result {
    let metrics = &server.metrics;
    writeln!(out, "# TYPE apiserver_request_total counter")?;
    let requests = metrics.requests.lock();
    let labels = |l: &Labels| {
        format!(
            "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\",code=\"{}\"",
            l.verb, l.group, l.version, l.resource, l.subresource, l.code
        )
    };
    for (l, count) in &*requests {
        writeln!(out, "apiserver_request_total{{{}}} {}", labels(l), count.requests)?;
    }
    writeln!(out, "# TYPE apiserver_request_duration_seconds summary")?;
    for (l, count) in &*requests {
        writeln!(out, "apiserver_request_duration_seconds_sum{{{}}} {}", labels(l), count.seconds)?;
        writeln!(out, "apiserver_request_duration_seconds_count{{{}}} {}", labels(l), count.requests)?;
    }
    drop(requests);
    let (reading, mutating) = server.limits.in_flight();
    writeln!(out, "# TYPE apiserver_current_inflight_requests gauge")?;
    writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {reading}")?;
    writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {mutating}")?;
    writeln!(out, "# TYPE apiserver_storage_objects gauge")?;
    let snapshot = server.store.snapshot();
    let mut counted = BTreeSet::new();
    for row in server.registry.current().iter().filter(|r| r.stored()) {
        // Versions of one custom kind are one resource.
        if !counted.insert(row.group_resource()) {
            continue;
        }
        let count = snapshot.count(&crate::call::list_prefix(row, ""), None);
        writeln!(out, "apiserver_storage_objects{{resource=\"{}\"}} {count}", row.group_resource())?;
    }
    writeln!(out, "# TYPE kubernetes_build_info gauge")?;
    writeln!(
        out,
        "kubernetes_build_info{{major=\"1\",minor=\"{}\",git_version=\"{}\"}} 1",
        crate::health::minor(),
        crate::health::git_version()
    )?;
    let started = metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    writeln!(out, "# TYPE process_start_time_seconds gauge")?;
    writeln!(out, "process_start_time_seconds {started}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Query;
    use std::collections::BTreeSet;

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
                ("GET".to_owned(), format!("/api/v1/namespaces/ns{n}/pods/name{n}")),
            ] {
                let info = RequestInfo::parse(&method.parse().unwrap(), &path, &Query::default());
                series.insert(Labels::of(&registry, &info));
            }
        }
        assert!(series.len() <= 6, "{series:?}");
    }
}
