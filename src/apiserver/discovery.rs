//! What is served: `/api`, `/apis` and below, plain and aggregated, made from the table.

use crate::ApiServer;
use crate::body::{self, Body};
use crate::negotiate::{self, Output};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use mini_api::{Status, Value};
use mini_resources::{Registry, Resource};
use serde_json::json;
use sha2::{Digest, Sha256};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a discovery path; None if it is none.
pub(crate) fn serve(server: &ApiServer, path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, Status>> {
    let parts: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    if !matches!(parts.first(), Some(&("api" | "apis"))) {
        return None;
    }
    let registry = &server.served();
    let value = match parts.as_slice() {
        ["api" | "apis"] if wants_aggregated(headers) => {
            return Some(Ok(aggregated(registry, parts[0] == "api", headers)));
        }
        ["api"] => versions(server, registry),
        ["apis"] => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named_groups(registry)}),
        ["apis", group] => {
            let mut value = named_groups(registry).into_iter().find(|g| g["name"] == **group)?;
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ["api", version] => resources(registry, "", version)?,
        ["apis", group, version] => resources(registry, group, version)?,
        _ => return None,
    };
    let output = Output::negotiate(headers, &crate::call::Query::default());
    Some(output.and_then(|output| output.respond(StatusCode::OK, Bytes::from(value.to_string()))))
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    negotiate::clauses(accept).iter().any(|clause| {
        clause.media == "application/json"
            && clause.parameter("g") == Some("apidiscovery.k8s.io")
            && clause.parameter("v") == Some("v2")
            && clause.parameter("as") == Some("APIGroupDiscoveryList")
    })
}

fn versions(server: &ApiServer, registry: &Registry) -> Value {
    let versions = registry.groups().into_iter().find(|g| g.name.is_empty()).map(|g| g.versions).unwrap_or_default();
    let address = server.advertised().to_string();
    json!({"kind": "APIVersions", "versions": versions,
           "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

fn named_groups(registry: &Registry) -> Vec<Value> {
    let version =
        |group: &str, version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    registry
        .groups()
        .into_iter()
        .filter(|g| !g.name.is_empty())
        .map(|g| {
            json!({"name": g.name, "versions": g.versions.iter().map(|v| version(&g.name, v)).collect::<Vec<_>>(),
                   "preferredVersion": version(&g.name, &g.preferred)})
        })
        .collect()
}

fn rows<'a>(registry: &'a Registry, group: &str, version: &str) -> Vec<&'a Resource> {
    let mut rows: Vec<&Resource> =
        registry.iter().map(|r| &**r).filter(|r| r.group == group && r.version == version).collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    rows
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let rows = rows(registry, group, version);
    let group_version = rows.first()?.api_version();
    let mut list = Vec::new();
    for row in rows {
        let mut entry = json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced,
                               "kind": row.kind, "verbs": row.verbs});
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if row.stored() {
            entry["storageVersionHash"] = storage_hash(row).into();
        }
        list.push(entry);
        for sub in &row.subresources {
            let mut entry = json!({"name": format!("{}/{}", row.plural, sub.name), "singularName": "",
                                   "namespaced": row.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if (&*sub.group, &*sub.version) != (row.group.as_str(), row.version.as_str()) {
                entry["group"] = sub.group.clone().into();
                entry["version"] = sub.version.clone().into();
            }
            list.push(entry);
        }
    }
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn storage_hash(row: &Resource) -> String {
    use base64::Engine;
    let digest = Sha256::digest(format!("{}/{}/{}", row.group, row.version, row.kind));
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// `apidiscovery.k8s.io/v2`: everything below `/api` or `/apis` in one answer.
fn aggregated(registry: &Registry, core: bool, headers: &HeaderMap) -> Response<Body> {
    let items: Vec<Value> = registry
        .groups()
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|g| {
            let versions: Vec<Value> = g
                .versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        rows(registry, &g.name, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": g.name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    tagged(headers, AGGREGATED, Bytes::from(list.to_string()))
}

fn aggregated_resource(row: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": kind(&row.group, &row.version, &row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        entry["subresources"] = row
            .subresources
            .iter()
            .map(|s| json!({"subresource": s.name, "responseKind": kind(&s.group, &s.version, &s.kind), "verbs": s.verbs}))
            .collect();
    }
    entry
}

/// A document with an ETag; 304 if the client has it.
pub(crate) fn tagged(headers: &HeaderMap, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let etag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&bytes)));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains(&etag));
    let mut response = if known {
        let mut response = Response::new(body::full(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        body::response(StatusCode::OK, content_type, bytes)
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}
