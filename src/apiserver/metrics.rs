//! `/metrics`: a few of upstream's names, in Prometheus' text format.

use crate::ApiServer;
use crate::body::{self, Body};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use std::collections::BTreeMap;
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
    for row in server.registry.iter().filter(|r| r.stored()) {
        let count = snapshot.count(&crate::call::list_prefix(row, ""), None);
        writeln!(out, "apiserver_storage_objects{{resource=\"{}\"}} {count}", row.group_resource())?;
    }
    writeln!(out, "# TYPE kubernetes_build_info gauge")?;
    writeln!(
        out,
        "kubernetes_build_info{{major=\"1\",minor=\"{}\",git_version=\"{}\"}} 1",
        crate::health::MINOR,
        crate::health::GIT_VERSION
    )?;
    let started = metrics.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    writeln!(out, "# TYPE process_start_time_seconds gauge")?;
    writeln!(out, "process_start_time_seconds {started}")
}
