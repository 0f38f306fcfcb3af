//! `proxy` of a node, through to a kubelet; pods and services take the same way, and need addresses that a test has not.

use crate::harness::{Server, json};
use crate::streams;
use http::Method;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json as j};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODE: &str = "/api/v1/nodes/n1/proxy";

async fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let path = format!("{NODE}{path}");
    let answer = server.send(server.admin(), method.parse().unwrap(), &path, headers, body).await;
    let (parts, body) = answer.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer { code: parts.status.as_u16(), headers: parts.headers, text }
}

struct Answer {
    code: u16,
    headers: http::HeaderMap,
    text: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_passes_with_its_body() {
    let server = streams::server().await;
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let body = j!({"some": "body"});
        let answer = ask(&server, method, "/stats/echo/a%2Fb/?c=d%20e", &[], Some(&body)).await;
        assert_eq!(answer.code, 200, "{method}");
        assert!(answer.text.starts_with(&format!("{method} /stats/echo/a%2Fb/?c=d%20e\n")), "{}", answer.text);
        assert!(answer.text.ends_with("\n{\"some\":\"body\"}"), "{}", answer.text);
        let slashless = ask(&server, method, "?x=y", &[], None).await;
        assert_eq!(slashless.code == 301, method == "GET", "{method}: {}", slashless.code);
    }
    let head = ask(&server, "HEAD", "/stats/echo", &[], None).await;
    assert_eq!((head.code, head.text.as_str()), (200, ""));
    let root = ask(&server, "GET", "?x=y", &[], None).await;
    assert_eq!(root.headers["location"], format!("{NODE}/?x=y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_learns_the_way_and_no_secret() {
    let server = streams::server().await;
    let headers = [("x-own", "kept"), ("x-forwarded-for", "192.0.2.7"), ("authorization", "Basic c2VjcmV0")];
    let answer = ask(&server, "GET", "/stats/echo/x", &headers, None).await;
    // A token of the wrong kind is no token; whoever it is for, it does not pass.
    for line in ["x-own: kept\n", "x-forwarded-for: 192.0.2.7, 127.0.0.1\n", "x-forwarded-uri: "] {
        assert!(answer.text.contains(line), "{line} in {}", answer.text);
    }
    assert!(answer.text.contains(&format!("x-forwarded-uri: {NODE}/stats/echo/x\n")), "{}", answer.text);
    assert!(!answer.text.contains("authorization"), "{}", answer.text);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_redirects_lead_through_the_proxy_again() {
    let server = streams::server().await;
    let page = ask(&server, "GET", "/stats/echo/page", &[], None).await;
    assert_eq!(page.text, format!("<a href=\"{NODE}/rewriteme\">test</a><a href=\"{NODE}/x\">"));
    let moved = ask(&server, "GET", "/stats/echo/moved", &[], None).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (302, &*format!("{NODE}/there")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_goes_through_also_at_the_root() {
    let server = streams::server().await;
    for path in [NODE.to_owned(), format!("{NODE}/any/where")] {
        let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let answer = server.send(server.admin(), Method::GET, &path, &headers, None).await;
        assert_eq!(answer.status(), 101, "{path}");
        let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        stream.write_all(b"any bytes").await.unwrap();
        let mut back = [0; 9];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"any bytes");
    }
    let unknown = server.send(server.admin(), Method::GET, "/api/v1/nodes/n2/proxy/", &[], None).await;
    assert_eq!(json(unknown).await.0, 404);
}
