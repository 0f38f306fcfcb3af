//! What a request asks for, read from its method and path alone: upstream's `RequestInfo`.

use crate::call::Query;
use http::Method;

/// A path taken apart. Knows no resources: `resource` is whatever stands at its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False for discovery, health and everything else that is no API object.
    pub resource_request: bool,
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection; for other paths the method in lower case.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, for proxies: without a leading slash.
    pub rest: String,
}

impl RequestInfo {
    /// Takes `path` (percent-decoded by segment here) apart.
    #[must_use]
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info = Self { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..Self::default() };
        let mut parts = path.split('/').filter(|s| !s.is_empty());
        match parts.next() {
            Some("api") => {}
            Some("apis") => match parts.next() {
                Some(group) => group.clone_into(&mut info.group),
                None => return info,
            },
            _ => return info,
        }
        let Some(version) = parts.next() else { return info };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            info.group.clear();
            return info;
        }
        info.resource_request = true;
        version.clone_into(&mut info.version);
        info.verb = match *method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        let mut watch = false;
        if parts.peek() == Some(&"watch") {
            watch = true;
            parts.next();
        }
        let mut rest: Vec<String> = parts.map(decode_segment).collect();
        if rest.first().is_some_and(|first| first == "namespaces")
            && let Some(namespace) = rest.get(1)
        {
            info.namespace.clone_from(namespace);
            // `namespaces/x/pods` is about pods; `namespaces/x/finalize` about the namespace.
            if rest.get(2).is_some_and(|third| third != "status" && third != "finalize") {
                rest.drain(..2);
            }
        }
        let mut rest = rest.into_iter();
        info.resource = rest.next().unwrap_or_default();
        info.name = rest.next().unwrap_or_default();
        info.subresource = rest.next().unwrap_or_default();
        info.rest = rest.collect::<Vec<_>>().join("/");
        if path.ends_with('/') && !info.rest.is_empty() {
            info.rest.push('/');
        }
        if info.name.is_empty() && info.verb == "get" {
            info.verb = if watch || query.flag("watch") { "watch" } else { "list" }.to_owned();
            if let Some(name) = query.get("fieldSelector").and_then(name_in_selector) {
                info.name = name;
            }
        } else if watch && info.verb == "get" {
            "watch".clone_into(&mut info.verb);
        } else if info.name.is_empty() && info.verb == "delete" {
            "deletecollection".clone_into(&mut info.verb);
        }
        info
    }

    /// True for requests that may last: they are not counted in flight and have no deadline.
    #[must_use]
    pub fn long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

/// The name that `metadata.name=x` pins a list or watch to: authorization by resourceNames counts on it.
fn name_in_selector(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

fn decode_segment(segment: &str) -> String {
    crate::call::percent_decode(segment, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query))
    }

    fn words(i: &RequestInfo) -> [&str; 7] {
        [&i.verb, &i.group, &i.version, &i.namespace, &i.resource, &i.name, &i.subresource]
    }

    #[test]
    fn paths_of_objects() {
        for (method, target, want) in [
            ("GET", "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/a/pods/b", ["get", "", "v1", "a", "pods", "b", ""]),
            ("GET", "/api/v1/namespaces/a/pods/b/log", ["get", "", "v1", "a", "pods", "b", "log"]),
            ("GET", "/api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "a", ""]),
            ("PUT", "/api/v1/namespaces/a/finalize", ["update", "", "v1", "a", "namespaces", "a", "finalize"]),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", ["create", "apps", "v1", "a", "deployments", "", ""]),
            ("DELETE", "/api/v1/nodes", ["deletecollection", "", "v1", "", "nodes", "", ""]),
            ("GET", "/api/v1/pods?watch=1", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch=false", ["list", "", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dx", ["list", "", "v1", "", "pods", "x", ""]),
        ] {
            let info = parse(method, target);
            assert!(info.resource_request, "{target}");
            assert_eq!(words(&info), want, "{target}");
        }
    }

    #[test]
    fn other_paths() {
        for target in ["/", "/version", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz/ping"] {
            let info = parse("GET", target);
            assert!(!info.resource_request, "{target}");
            assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", target));
        }
    }

    #[test]
    fn the_rest_of_a_proxy_path_is_kept() {
        let info = parse("GET", "/api/v1/nodes/n/proxy/stats/summary");
        assert_eq!((info.subresource.as_str(), info.rest.as_str()), ("proxy", "stats/summary"));
    }
}
