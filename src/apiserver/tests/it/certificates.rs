//! Certificate requests: who asks, who approves.

use crate::harness::Server;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// Made with `openssl req -new -subj /CN=it`, P-256.
const REQUEST: &str = include_str!("request.pem");

#[tokio::test]
async fn who_asks_is_what_the_server_knows() {
    let s = Server::start().await;
    let text = STANDARD.encode(REQUEST);
    let body = |name: &str, request: &str| {
        json!({"metadata": {"name": name}, "spec": {"request": request, "username": "forged", "groups": ["system:masters"],
            "signerName": "example.com/s", "usages": ["client auth"]}})
    };
    let made = s.post(REQUESTS, &body("a", &text)).await;
    assert_eq!((made.code, &made.body["spec"]["username"]), (201, &json!("kubernetes-admin")), "{}", made.body);
    assert_eq!(made.body["status"], json!({}));

    let rubbish = s.post(REQUESTS, &body("b", "QQ==")).await;
    assert_eq!(
        rubbish.body["message"],
        "CertificateSigningRequest.certificates.k8s.io \"b\" is invalid: spec.request: Invalid value: \"QQ==\": PEM block type \
         must be CERTIFICATE REQUEST"
    );
    // What is approved stays approved, and only through the subresource.
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r"}]}});
    let sideways = s.patch(&format!("{REQUESTS}/a/status"), &approved).await;
    assert_eq!(
        sideways.body["message"],
        "CertificateSigningRequest.certificates.k8s.io \"a\" is invalid: status.conditions: Forbidden: updates may not add a \
         condition of type \"Approved\""
    );
    let done = s.patch(&format!("{REQUESTS}/a/approval"), &approved).await;
    assert_eq!(done.code, 200, "{}", done.body);
    assert!(done.body["status"]["conditions"][0]["lastTransitionTime"].is_string(), "{}", done.body);
    let undone = s.patch(&format!("{REQUESTS}/a/approval"), &json!({"status": {"conditions": null}})).await;
    assert_eq!(undone.code, 422, "{}", undone.body);
    s.stop().await;
}
