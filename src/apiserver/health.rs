//! `/healthz`, `/livez`, `/readyz`, each check by itself below them, `/version`, and what is known of the other components.
//!
//! The checks have upstream's names, because monitoring asks for them by name; each says what is true here.

use crate::ApiServer;
use crate::body::{self, Body};
use crate::call::Query;
use http::{HeaderValue, Response, StatusCode, header};
use mini_api::KUBERNETES_VERSION;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The oldest minor version that this server may be told to be like.
const MINOR_COMPATIBLE: &str = "36";

/// What must be so for a check to pass.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    /// That we answer is the answer.
    Answer,
    /// The store takes writes.
    Store,
    /// The system's objects are made, and what is read from them is served: all of it happens before the first request
    /// is answered.
    Boot,
    /// The server is not about to end.
    Stay,
}

/// The endpoints.
const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];
const READY: &[&str] = &["readyz"];

/// Name, where it is asked for, and what must be so; in upstream's order.
const CHECKS: &[(&str, &[&str], Must)] = &[
    ("ping", &ENDPOINTS, Must::Answer),
    ("log", &ENDPOINTS, Must::Answer),
    ("etcd", &ENDPOINTS, Must::Store),
    ("etcd-readiness", READY, Must::Store),
    ("informer-sync", READY, Must::Boot),
    ("poststarthook/start-apiserver-admission-initializer", &ENDPOINTS, Must::Boot),
    ("poststarthook/generic-apiserver-start-informers", &ENDPOINTS, Must::Boot),
    ("poststarthook/priority-and-fairness-config-consumer", &ENDPOINTS, Must::Boot),
    ("poststarthook/priority-and-fairness-filter", &ENDPOINTS, Must::Boot),
    ("poststarthook/storage-object-count-tracker-hook", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-apiextensions-informers", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-apiextensions-controllers", &ENDPOINTS, Must::Boot),
    ("poststarthook/crd-informer-synced", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-system-namespaces-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-cluster-authentication-info-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-service-ip-repair-controllers", &ENDPOINTS, Must::Boot),
    ("poststarthook/rbac/bootstrap-roles", &ENDPOINTS, Must::Boot),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", &ENDPOINTS, Must::Boot),
    ("poststarthook/priority-and-fairness-config-producer", &ENDPOINTS, Must::Boot),
    ("poststarthook/bootstrap-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-kubernetes-service-cidr-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/start-kube-aggregator-informers", &ENDPOINTS, Must::Boot),
    ("poststarthook/apiservice-status-local-available-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/apiservice-registration-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/apiservice-discovery-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/kube-apiserver-autoregistration", &ENDPOINTS, Must::Boot),
    ("autoregister-completion", &ENDPOINTS, Must::Boot),
    ("poststarthook/apiservice-openapi-controller", &ENDPOINTS, Must::Boot),
    ("poststarthook/apiservice-openapiv3-controller", &ENDPOINTS, Must::Boot),
    ("shutdown", READY, Must::Stay),
];

/// How the component `name` is: why it is not well, if it is not.
pub type Component = (String, Option<String>);
/// Asks after the components of this process.
pub type Components = Arc<dyn Fn() -> Vec<Component> + Send + Sync>;

/// The minor version that is served.
pub(crate) fn minor() -> &'static str {
    KUBERNETES_VERSION.split('.').nth(1).unwrap_or_default()
}

/// `gitVersion`: the release that the behaviour follows, and whose build this is.
pub(crate) fn git_version() -> String {
    format!("{KUBERNETES_VERSION}+mini")
}

/// Answers a health path; None if it is none.
pub(crate) fn serve(server: &ApiServer, path: &str, query: &Query) -> Option<Response<Body>> {
    let path = path.strip_prefix('/')?;
    let (endpoint, only) = path.split_once('/').map_or((path, ""), |(endpoint, check)| (endpoint, check));
    let endpoint = *ENDPOINTS.iter().find(|known| **known == endpoint)?;
    if !only.is_empty() {
        let (name, must) = checks(endpoint).find(|(name, _)| *name == only)?;
        let failure = failure(server, endpoint, must);
        server.metrics.checked(name, endpoint, failure.is_none());
        return Some(match failure {
            None => text(StatusCode::OK, "ok".to_owned()),
            Some(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal server error: {why}")),
        });
    }
    let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for (name, must) in checks(endpoint) {
        if excluded.remove(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let well = failure(server, endpoint, must).is_none();
        server.metrics.checked(name, endpoint, well);
        if well {
            lines.push_str(&format!("[+]{name} ok\n"));
        } else {
            failed = true;
            // Everybody may ask; why it is so, only those who may ask for the check by itself.
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    Some(if failed {
        error(StatusCode::INTERNAL_SERVER_ERROR, &format!("{lines}{endpoint} check failed"))
    } else if query.get("verbose").is_some() {
        text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        text(StatusCode::OK, "ok".to_owned())
    })
}

fn checks(endpoint: &str) -> impl Iterator<Item = (&'static str, Must)> {
    CHECKS.iter().filter(move |(_, where_, _)| where_.contains(&endpoint)).map(|(name, _, must)| (*name, *must))
}

/// Why a check fails.
fn failure(server: &ApiServer, endpoint: &str, must: Must) -> Option<&'static str> {
    let well = match must {
        Must::Answer => true,
        Must::Store => server.store.is_well(),
        // A server that is still starting is alive.
        Must::Boot => endpoint == "livez" || server.booted.load(Ordering::Acquire),
        Must::Stay => !server.draining.is_cancelled(),
    };
    (!well).then_some(match must {
        Must::Answer => "",
        Must::Store => "the store does not take writes",
        Must::Boot => "not finished",
        Must::Stay => "process is shutting down",
    })
}

/// The state of every check now, for `/metrics/slis`.
pub(crate) fn gauges(server: &ApiServer) -> Vec<(&'static str, &'static str, bool)> {
    ENDPOINTS
        .iter()
        .flat_map(|endpoint| {
            checks(endpoint).map(move |(name, must)| (name, *endpoint, failure(server, endpoint, must).is_none()))
        })
        .collect()
}

/// The components as `kubectl get componentstatuses` has them: this server's store, and what the process says of others.
pub(crate) fn components(server: &ApiServer) -> Vec<Component> {
    let mut found = server.components.get().map(|ask| ask()).unwrap_or_default();
    found.push(("etcd-0".to_owned(), failure(server, "", Must::Store).map(str::to_owned)));
    found
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = body::response(code, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A failure as Go's `http.Error` writes it.
pub(crate) fn error(code: StatusCode, message: &str) -> Response<Body> {
    text(code, format!("{message}\n"))
}

/// `/version`.
pub(crate) fn version() -> Response<Body> {
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let value = json!({"major": "1", "minor": minor(), "emulationMajor": "1", "emulationMinor": minor(),
                       "minCompatibilityMajor": "1", "minCompatibilityMinor": MINOR_COMPATIBLE, "gitVersion": git_version(),
                       "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                       "goVersion": "", "compiler": "rustc", "platform": platform});
    body::json(StatusCode::OK, &value)
}
