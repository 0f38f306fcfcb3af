//! Upstream's words: bad objects and requests, and what upstream's API server answers.
//!
//! `golden.jsonl` was written from the answers of a kube-apiserver 1.20.2 built from Debian's sources, in the wording of
//! 1.37: RFC 1123 for DNS-1123, sizes as "may not be more than", owners by kind and name, networking for what 1.20 still
//! called extensions, and values as JSON where 1.20 printed Go's syntax. Only what both releases say alike is in it.

use crate::harness::{Answer, JSON, Server};
use serde::Deserialize;
use serde_json::Value;

const CASES: &str = include_str!("golden.jsonl");

#[derive(Deserialize)]
struct Case {
    name: String,
    method: String,
    path: String,
    #[serde(rename = "type", default)]
    content_type: Option<String>,
    #[serde(default)]
    body: Value,
    /// What must be there before: method, path, body.
    #[serde(default)]
    setup: Vec<(String, String, Value)>,
    code: u16,
    reason: String,
    message: String,
    /// Reason, field, message.
    #[serde(default)]
    causes: Vec<(String, String, String)>,
}

fn causes(answer: &Answer) -> Vec<(String, String, String)> {
    let causes = answer.body["details"]["causes"].as_array();
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
    causes.into_iter().flatten().map(|c| (text(c, "reason"), text(c, "field"), text(c, "message"))).collect()
}

#[tokio::test]
async fn what_is_refused_is_refused_in_upstreams_words() {
    let s = Server::start().await;
    let cases: Vec<Case> = CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 260, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        for (method, path, body) in &case.setup {
            let made = s.call(method, path, JSON, body).await;
            assert!(matches!(made.code, 200 | 201 | 409), "{}: {}", case.name, made.body);
        }
        let content_type = case.content_type.as_deref().unwrap_or(JSON);
        let answer = s.call(&case.method, &case.path, content_type, &case.body).await;
        let text = |field: &str| answer.body[field].as_str().unwrap_or_default();
        let given = (answer.code, text("reason"), text("message"), causes(&answer));
        let wished = (case.code, case.reason.as_str(), case.message.as_str(), case.causes.clone());
        if given != wished {
            wrong.push(format!("{}\n  wished {wished:?}\n  given  {given:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    s.stop().await;
}
