//! Tokens of service accounts: the `token` subresource, the key that signs them, and its publication.
//!
//! A token is a JWT (ES256) bound to an audience, a time and, usually, a pod. The private key never leaves [`Keys`].

use crate::config::ServiceAccounts;
use crate::{ApiServer, Body, Call, Error, admission, body};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Response, StatusCode, header};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mini_api::{FieldError, FieldPath, Meta, Status, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What a pod's own token asks for: upstream gives it a year, so that clients that never read the file again live on,
/// and the kubelet renews it after this.
const WARN_ONLY_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
const DEFAULT_SECONDS: i64 = 3600;
/// `iss` of tokens that live in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What stands in a token. Tokens that live in Secrets have the `legacy_` claims instead of `kubernetes.io`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Claims {
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub(crate) aud: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iat: Option<i64>,
    pub(crate) iss: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jti: Option<String>,
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<Kubernetes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nbf: Option<i64>,
    pub(crate) sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_namespace: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_secret: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_account: Option<String>,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", skip_serializing_if = "Option::is_none")]
    pub(crate) legacy_account_uid: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
    pub(crate) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// The key pair of service account tokens.
pub(crate) struct Keys {
    signing: EncodingKey,
    verifying: DecodingKey,
    id: String,
    issuer: String,
    /// `{"keys": […]}`.
    published: Value,
}

impl Keys {
    pub(crate) fn load(config: &ServiceAccounts) -> Result<Self, Error> {
        let path = &config.key;
        let pem = std::fs::read(path).map_err(|source| Error::File { path: path.clone(), source })?;
        let damaged = |why: String| Error::Material { path: path.clone(), what: "service account key", why };
        let signing = EncodingKey::from_ec_pem(&pem).map_err(|e| damaged(e.to_string()))?;
        let jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).map_err(|e| damaged(e.to_string()))?;
        let verifying = DecodingKey::from_jwk(&jwk).map_err(|e| damaged(e.to_string()))?;
        let AlgorithmParameters::EllipticCurve(point) = &jwk.algorithm else {
            return Err(damaged("not an elliptic curve key".to_owned()));
        };
        // Upstream's key id is a digest of the public key's DER; ours is one of the point, which is as good a name.
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{}.{}", point.x, point.y)));
        let published = json!({"keys": [{"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
                                         "x": point.x, "y": point.y}]});
        Ok(Self { signing, verifying, id, issuer: config.issuer.clone(), published })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Checks the signature, and nothing that depends on time or on objects.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, String> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        match jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(format!("invalid bearer token: {error}")),
        }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, Status> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = None;
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.signing).map_err(Status::internal)
    }
}

/// The token of a Secret of type `kubernetes.io/service-account-token`: it ends with the Secret, not with time.
///
/// # Errors
/// The key cannot sign.
pub fn sign_legacy(
    server: &ApiServer,
    namespace: &str,
    account: &str,
    account_uid: &str,
    secret: &str,
) -> Result<String, Status> {
    server.authn.keys().sign(&Claims {
        iss: LEGACY_ISSUER.to_owned(),
        sub: format!("system:serviceaccount:{namespace}:{account}"),
        legacy_namespace: Some(namespace.to_owned()),
        legacy_secret: Some(secret.to_owned()),
        legacy_account: Some(account.to_owned()),
        legacy_account_uid: Some(account_uid.to_owned()),
        ..Claims::default()
    })
}

/// Seconds since the epoch.
pub(crate) fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// `POST serviceaccounts/x/token`: `request` is the decoded `TokenRequest`; the answer is the same with its status.
///
/// # Errors
/// As upstream's `TokenREST`.
pub async fn create(call: &Call, mut request: Value) -> Result<Value, Status> {
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    check_meta(&request, namespace, name)?;
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    validate(seconds)?;
    let asked = admission::Request::new(call, admission::Operation::Create, name, &mut request);
    admission::validate(&mut admission::Request { subresource: "token", ..asked }).await?;
    let account = object(&call.server, "serviceaccounts", namespace, name)?;
    let uid = |object: &Value| Reference { name: object.name().to_owned(), uid: object.uid().to_owned() };
    let mut kubernetes =
        Kubernetes { namespace: namespace.to_owned(), serviceaccount: uid(&account), ..Kubernetes::default() };
    let keys = call.server.authn.keys();
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut audiences: Vec<String> = audiences.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(keys.issuer().to_owned());
    }
    // Others than this API cannot be told that the token was renewed, and must not take it for a year.
    let extends = seconds == WARN_ONLY_SECONDS && audiences.iter().all(|audience| audience == keys.issuer());
    let mut lasts = seconds;
    let now = unix_now();
    if let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) {
        let text = |field| reference.text(&[field]);
        let bound = match (text("apiVersion"), text("kind")) {
            ("" | "v1", "Pod") => {
                let pod = object(&call.server, "pods", namespace, text("name"))?;
                if pod.text(&["spec", "serviceAccountName"]) != name {
                    let why = format!(
                        "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
                    );
                    return Err(Status::bad_request(why));
                }
                let node = pod.text(&["spec", "nodeName"]);
                if !node.is_empty() {
                    let stored = object(&call.server, "nodes", "", node).ok();
                    let uid = stored.map(|n| n.uid().to_owned()).unwrap_or_default();
                    kubernetes.node = Some(Reference { name: node.to_owned(), uid });
                }
                if extends {
                    kubernetes.warnafter = Some(now + seconds);
                    lasts = EXTENDED_SECONDS;
                }
                kubernetes.pod.insert(uid(&pod))
            }
            ("" | "v1", "Secret") => {
                kubernetes.secret.insert(uid(&object(&call.server, "secrets", namespace, text("name"))?))
            }
            ("" | "v1", "Node") => kubernetes.node.insert(uid(&object(&call.server, "nodes", "", text("name"))?)),
            (version, kind) => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
                return Err(Status::bad_request(why));
            }
        };
        let wanted = text("uid");
        if !wanted.is_empty() && bound.uid != wanted {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Status::conflict("", text("kind"), text("name"), &why));
        }
    }
    let claims = Claims {
        aud: audiences.clone(),
        exp: Some(now + lasts),
        iat: Some(now),
        iss: keys.issuer().to_owned(),
        jti: Some(uuid::Uuid::new_v4().to_string()),
        kubernetes: Some(kubernetes),
        nbf: Some(now),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        ..Claims::default()
    };
    let token = keys.sign(&claims)?;
    let expires = jiff::Timestamp::from_second(now + seconds).map_err(Status::internal)?;
    let metadata = request.meta_mut();
    metadata.insert("name".to_owned(), Value::from(name));
    metadata.insert("namespace".to_owned(), Value::from(namespace));
    metadata.entry("creationTimestamp").or_insert_with(|| Value::from(mini_api::time::now()));
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": mini_api::time::seconds(expires)});
    Ok(request)
}

/// What the request says of itself must be what its path says.
fn check_meta(request: &Value, namespace: &str, name: &str) -> Result<(), Status> {
    let metadata = FieldPath::new("metadata");
    let mut errors = Vec::new();
    let (given, place) = (request.name(), request.namespace());
    if !given.is_empty() && given != name {
        errors.push(FieldError::invalid(&metadata.child("name"), given, "must match the service account name"));
    }
    if !place.is_empty() && place != namespace {
        let why = "must match the service account namespace";
        errors.push(FieldError::invalid(&metadata.child("namespace"), place, why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", given, &errors))
}

fn validate(seconds: i64) -> Result<(), Status> {
    let refuse = |why: &str| {
        let path = FieldPath::new("spec").child("expirationSeconds");
        Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[FieldError::invalid(&path, seconds, why)]))
    };
    if seconds < 600 {
        return refuse("may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        return refuse("may not specify a duration larger than 2^32 seconds");
    }
    Ok(())
}

fn object(server: &ApiServer, storage: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let key = match namespace {
        "" => format!("/registry/{storage}/{name}"),
        _ => format!("/registry/{storage}/{namespace}/{name}"),
    };
    let entry = server.store.snapshot().get(&key).ok_or_else(|| Status::not_found("", storage, name))?;
    serde_json::from_slice(&entry.bytes).map_err(Status::internal)
}

/// `/.well-known/openid-configuration` and `/openid/v1/jwks`.
#[must_use]
pub fn discovery(server: &ApiServer, path: &str) -> Option<Response<Body>> {
    let keys = server.authn.keys();
    match path {
        "/.well-known/openid-configuration" => {
            let jwks = format!("https://{}/openid/v1/jwks", server.advertised());
            let document = json!({
                "issuer": keys.issuer(), "jwks_uri": jwks, "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
            });
            Some(published("application/json", document.to_string()))
        }
        "/openid/v1/jwks" => Some(published("application/jwk-set+json", keys.published.to_string())),
        _ => None,
    }
}

/// Whoever verifies tokens may keep it for a while.
fn published(content_type: &'static str, document: String) -> Response<Body> {
    let mut response = body::response(StatusCode::OK, content_type, document);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::IpAddr;

    pub(crate) fn subjects() -> mini_pki::Subjects {
        mini_pki::Subjects {
            node_name: "n1".into(),
            host_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_ip: IpAddr::from([10, 152, 183, 1]),
            node_ips: vec![IpAddr::from([127, 0, 0, 1])],
            extra_sans: vec![],
        }
    }

    fn keys(dir: &std::path::Path) -> Keys {
        let pki = mini_pki::Pki::ensure(dir, &subjects()).unwrap();
        Keys::load(&ServiceAccounts { issuer: "https://issuer".into(), key: pki.service_account.key }).unwrap()
    }

    #[test]
    fn what_is_signed_is_verified() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, theirs) = (keys(one.path()), keys(two.path()));
        let claims =
            Claims { iss: "https://issuer".into(), sub: "s".into(), aud: vec!["a".into()], ..Claims::default() };
        let token = ours.sign(&claims).unwrap();
        assert_eq!(ours.verify(&token).unwrap().aud, ["a"]);
        assert!(theirs.verify(&token).is_err());
        let (head, signature) = token.rsplit_once('.').unwrap();
        assert!(ours.verify(&format!("{head}x.{signature}")).is_err());
        assert!(ours.verify("rubbish").is_err());
        assert_ne!(ours.id, theirs.id);
    }

    #[test]
    fn published_keys_have_their_point() {
        let dir = tempfile::tempdir().unwrap();
        let key = keys(dir.path()).published["keys"][0].clone();
        for coordinate in ["x", "y"] {
            assert_eq!(URL_SAFE_NO_PAD.decode(key[coordinate].as_str().unwrap()).unwrap().len(), 32);
        }
        assert_eq!(key["alg"], "ES256");
    }

    #[test]
    fn life_has_bounds() {
        assert_eq!(validate(599).unwrap_err().code, 422);
        assert!(validate(600).is_ok() && validate(1 << 32).is_ok());
        assert!(validate((1 << 32) + 1).is_err());
    }
}
