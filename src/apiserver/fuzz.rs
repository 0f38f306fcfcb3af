//! Mutated inputs for everything that a client, or a backend behind the proxy, sends.

use crate::call::{Query, percent_decode};
use crate::negotiate::{self, Media, Output};
use crate::request_info::RequestInfo;
use http::{HeaderMap, HeaderValue, Method, header};
use mini_fuzz::{outcome, run};

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

#[test]
fn request_paths() {
    const CORPUS: &[&[u8]] = &[
        b"/api/v1/namespaces/default/pods/a/log?follow=1&container=c",
        b"/apis/apps/v1/watch/namespaces/x/deployments?labelSelector=a%3Db&limit=5&continue=x",
        b"/api/v1/namespaces/x/services/https:s:80/proxy/a//b/?c=%2F",
        b"/api/v1/nodes?fieldSelector=metadata.name%3Dn&watch=true&timeoutSeconds=-1",
        b"/apis/a.b/v1/foos/%2e%2e/status",
        b"/openapi/v3/apis/apps/v1?hash=x",
    ];
    run(
        CORPUS,
        &["/", "//", "namespaces", "watch", "proxy", "%", "%2F", "%00", "%ff", "..", "?", "&", "=", "+"],
        |input| {
            let target = text(input);
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let query = Query::parse(query);
            let _ = (query.flag("watch"), query.number("limit").is_ok(), percent_decode(path, true));
            [Method::GET, Method::DELETE, Method::POST].map(|method| {
                let info = RequestInfo::parse(&method, path, &query);
                assert!(!info.resource_request || !info.version.is_empty(), "{info:?}");
                let _ = info.long_running();
                (info.verb, info.resource_request, info.subresource.len(), info.namespace.is_empty())
            })
        },
    );
}

#[test]
fn bodies() {
    const CORPUS: &[&[u8]] = &[
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: 'y'}}\nspec:\n  containers:\n  - name: c\n    args: [\"a\", !!str 1]\n    mode: 0644\n",
        b"a: &x {b: [1, 2]}\nc: *x\n<<: *x\nd: |\n  text\n  more\ne: >-\n  f\n",
        b"{\"apiVersion\": \"v1\", \"data\": {\"a\": 1e3, \"a\": null}}",
        b"---\n- 1\n- ~\n- yes\n...\n",
    ];
    run(
        CORPUS,
        &["&a ", "*a", "<<: ", "- ", "  ", "\n", ": ", "!!binary ", "|", ">", "\t", "{", "}", "[", "]", "---\n", "? "],
        |input| {
            let _ = negotiate::yaml_duplicate(input);
            let yaml = negotiate::parse(Media::Yaml, input).map_err(|status| status.message);
            let json = negotiate::parse(Media::Json, input).map_err(|status| status.message);
            if let Ok(value) = &json {
                let again = serde_json::to_string(value).expect("JSON");
                // serde_json reads some fractions and long numbers one step off.
                let exact = !again.contains(['.', 'e']);
                assert!(
                    !exact || negotiate::parse(Media::Json, again.as_bytes()).ok().as_ref() == Some(value),
                    "{again}"
                );
            }
            (outcome(&yaml), outcome(&json))
        },
    );
}

#[test]
fn headers() {
    const CORPUS: &[&[u8]] = &[
        b"application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5,*/*",
        b"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/yaml",
        b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    ];
    run(CORPUS, &[";", ",", "=", "q=0", "\"", "*/*", "as=Table", "application/json", "pretty"], |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return None };
        let headers = HeaderMap::from_iter([(header::ACCEPT, value.clone()), (header::CONTENT_TYPE, value)]);
        let media = negotiate::media(&headers).ok();
        Some((
            Output::negotiate(&headers, &Query::default()).map(|output| (output.yaml, output.protobuf)).ok(),
            format!("{media:?}"),
        ))
    });
}
