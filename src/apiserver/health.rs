//! `/healthz`, `/livez`, `/readyz` and `/version`.

use crate::ApiServer;
use crate::body::{self, Body};
use crate::call::Query;
use http::{Response, StatusCode};
use mini_api::KUBERNETES_VERSION;
use serde_json::json;
use std::sync::atomic::Ordering;

/// The oldest minor version that this server may be told to be like.
const MINOR_COMPATIBLE: &str = "36";

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
    let mut parts = path.split('/').filter(|s| !s.is_empty());
    let endpoint = parts.next()?;
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let only = parts.next();
    let checks = checks(server, endpoint);
    if let Some(only) = only {
        let (_, failure) = checks.into_iter().find(|(name, _)| *name == only)?;
        return Some(match failure {
            None => text(StatusCode::OK, "ok".to_owned()),
            Some(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let excluded = query.all("exclude").collect::<Vec<_>>();
    let mut lines = String::new();
    let mut failed = false;
    for (name, failure) in &checks {
        if excluded.contains(name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if failure.is_none() {
            lines.push_str(&format!("[+]{name} ok\n"));
        } else {
            failed = true;
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    Some(if failed {
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"))
    } else if query.get("verbose").is_some() {
        text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        text(StatusCode::OK, "ok".to_owned())
    })
}

/// Name and, where it fails, why.
fn checks(server: &ApiServer, endpoint: &str) -> Vec<(&'static str, Option<&'static str>)> {
    let booted = server.booted.load(Ordering::Acquire);
    let mut checks = vec![("ping", None), ("store", None)];
    let boot = (!booted).then_some("the system objects are not made yet");
    checks.push(("poststarthook/bootstrap", boot.filter(|_| endpoint != "livez")));
    if endpoint == "readyz" {
        checks.push(("shutdown", server.draining.is_cancelled().then_some("process is shutting down")));
    }
    checks
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    body::response(code, "text/plain; charset=utf-8", text)
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
