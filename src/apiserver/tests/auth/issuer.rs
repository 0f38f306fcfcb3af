//! The issuer of service account tokens as others see it, and tokens bound to objects.

use crate::harness::{As, Server};
use http::Method;
use http_body_util::BodyExt;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json as j};

async fn namespace(server: &Server) {
    server.create("/api/v1/namespaces", j!({"metadata": {"name": "a"}})).await;
    server.create("/api/v1/namespaces/a/serviceaccounts", j!({"metadata": {"name": "robot"}})).await;
}

async fn token(server: &Server, spec: Value) -> String {
    let request = j!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    let made = server.create("/api/v1/namespaces/a/serviceaccounts/robot/token", request).await;
    made["status"]["token"].as_str().unwrap().to_owned()
}

/// What any OIDC client does: reads the configuration, the keys it leads to, and checks a token against them.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_verified_through_discovery() {
    let server = Server::start().await;
    namespace(&server).await;
    let robot = token(&server, j!({"audiences": ["vault"]})).await;
    // Every service account may look, and nobody else who was not told to.
    let own = token(&server, j!({})).await;
    let document = async |path: &str| {
        let answer = server.send(As::Token(&own), Method::GET, path, &[], None).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["cache-control"], "public, max-age=3600");
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let (kind, configuration) = document("/.well-known/openid-configuration").await;
    let configuration: Value = serde_json::from_slice(&configuration).unwrap();
    assert_eq!(kind, "application/json");
    assert_eq!(
        configuration,
        j!({"issuer": "https://issuer.test", "jwks_uri": configuration["jwks_uri"], "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"]})
    );
    let keys = configuration["jwks_uri"].as_str().unwrap();
    let port = server.address.port();
    assert_eq!(keys, format!("https://192.0.2.1:{port}/openid/v1/jwks"));
    let (kind, keys) = document("/openid/v1/jwks").await;
    assert_eq!(kind, "application/jwk-set+json");
    let keys: JwkSet = serde_json::from_slice(&keys).unwrap();
    let header = jsonwebtoken::decode_header(&robot).unwrap();
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&[configuration["issuer"].as_str().unwrap()]);
    rules.set_audience(&["vault"]);
    let claims = jsonwebtoken::decode::<Value>(&robot, &key, &rules).unwrap().claims;
    assert_eq!(claims["sub"], "system:serviceaccount:a:robot");
    rules.set_audience(&["other"]);
    assert!(jsonwebtoken::decode::<Value>(&robot, &key, &rules).is_err());
    for path in ["/.well-known/openid-configuration", "/openid/v1/jwks"] {
        assert_eq!(server.call_as("jane", "GET", path, None).await.0, 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_their_secret_and_with_their_node() {
    let server = Server::start().await;
    namespace(&server).await;
    for (kind, path, rest) in [
        ("Secret", "/api/v1/namespaces/a/secrets", j!({"metadata": {"name": "x"}})),
        ("Node", "/api/v1/nodes", j!({"metadata": {"name": "x"}})),
    ] {
        let made = server.create(path, rest.clone()).await;
        let reference = j!({"kind": kind, "apiVersion": "v1", "name": "x", "uid": made["metadata"]["uid"]});
        let bound = token(&server, j!({"boundObjectRef": reference})).await;
        let review = async || {
            let object =
                j!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": bound}});
            server.create("/apis/authentication.k8s.io/v1/tokenreviews", object).await["status"].clone()
        };
        let good = review().await;
        assert_eq!(good["authenticated"], true, "{kind}: {good}");
        assert_eq!(good["audiences"], j!(["https://issuer.test"]), "{kind}");
        if kind == "Node" {
            assert_eq!(good["user"]["extra"]["authentication.kubernetes.io/node-name"], j!(["x"]));
        }
        // One of the same name is not the same.
        assert_eq!(server.call(server.admin(), "DELETE", &format!("{path}/x"), None).await.0, 200);
        server.create(path, rest).await;
        let bad = review().await;
        assert_ne!(bad["authenticated"], true, "{kind}: {bad}");
        assert_eq!(server.call(As::Token(&bound), "GET", "/api", None).await.0, 401, "{kind}");
        let wrong = j!({"kind": kind, "apiVersion": "v1", "name": "x", "uid": "00000000-0000-0000-0000-000000000000"});
        let request =
            j!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {"boundObjectRef": wrong}});
        let path = "/api/v1/namespaces/a/serviceaccounts/robot/token";
        assert_eq!(server.call(server.admin(), "POST", path, Some(request)).await.0, 409, "{kind}");
    }
}
