//! Tokens of service accounts: ours, signed and bound to objects that must still be there, and those of Secrets.

use super::TokenUser;
use crate::UserInfo;
use crate::tokens::{Claims, Keys, Reference};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mini_store::{Snapshot, Store};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// How far clocks may differ.
const LEEWAY: i64 = 60;
/// Tokens whose signature was found good. What can change with time is looked at every time.
const KEPT: usize = 4096;

const EXTRA: &str = "authentication.kubernetes.io/";

pub(super) struct ServiceAccountTokens {
    keys: Arc<Keys>,
    store: Store,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

/// As much of an object as tells whether it is the one that was meant.
#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta {
    #[serde(default)]
    uid: String,
    deletion_timestamp: Option<String>,
}

impl ServiceAccountTokens {
    pub(super) fn new(keys: Arc<Keys>, store: Store) -> Self {
        Self { keys, store, verified: Mutex::default() }
    }

    pub(super) fn user(&self, token: &str, digest: [u8; 32], audiences: &[String]) -> Result<TokenUser, String> {
        let known = self.verified.lock().get(&digest).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.keys.verify(token)?);
                let mut verified = self.verified.lock();
                if verified.len() >= KEPT {
                    verified.clear();
                }
                verified.insert(digest, claims.clone());
                claims
            }
        };
        let snapshot = self.store.snapshot();
        match &*claims {
            Claims { kubernetes: Some(_), .. } => self.bound(&claims, &snapshot, audiences),
            Claims { legacy_namespace: Some(_), .. } => self.legacy(token, &claims, &snapshot, audiences),
            _ => Err("the token says nothing of a service account".to_owned()),
        }
    }

    fn bound(&self, claims: &Claims, snapshot: &Snapshot, audiences: &[String]) -> Result<TokenUser, String> {
        if claims.iss != self.keys.issuer() {
            return Err("the token is another issuer's".to_owned());
        }
        let own = [self.keys.issuer().to_owned()];
        let wanted = if audiences.is_empty() { own.as_slice() } else { audiences };
        let matching: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if matching.is_empty() {
            return Err(format!("token audiences {:?} is invalid for the target audiences {wanted:?}", claims.aud));
        }
        let now = crate::tokens::unix_now();
        if claims.exp.is_none_or(|exp| exp + LEEWAY < now) {
            return Err("Token has expired.".to_owned());
        }
        if claims.nbf.is_some_and(|nbf| nbf - LEEWAY > now) {
            return Err("the token is not valid yet".to_owned());
        }
        let Some(kubernetes) = &claims.kubernetes else { return Err("no kubernetes.io claim".to_owned()) };
        let namespace = kubernetes.namespace.as_str();
        let account = &kubernetes.serviceaccount;
        alive(snapshot, "serviceaccounts", namespace, account, now)?;
        if let Some(secret) = &kubernetes.secret {
            alive(snapshot, "secrets", namespace, secret, now)?;
        }
        if let Some(pod) = &kubernetes.pod {
            alive(snapshot, "pods", namespace, pod, now)?;
        }
        if let (Some(node), None) = (&kubernetes.node, &kubernetes.pod) {
            alive(snapshot, "nodes", "", node, now)?;
        }
        let mut user = account_user(namespace, &account.name, &account.uid);
        let mut extra = |name: &str, value: String| drop(user.extra.insert(format!("{EXTRA}{name}"), vec![value]));
        if let Some(id) = &claims.jti {
            extra("credential-id", format!("JTI={id}"));
        }
        if let Some(pod) = &kubernetes.pod {
            extra("pod-name", pod.name.clone());
            extra("pod-uid", pod.uid.clone());
        }
        if let Some(node) = &kubernetes.node {
            extra("node-name", node.name.clone());
            if !node.uid.is_empty() {
                extra("node-uid", node.uid.clone());
            }
        }
        Ok(TokenUser { user, audiences: matching })
    }

    /// A token that lives in a Secret: as good as the Secret is there and holds it.
    fn legacy(
        &self,
        token: &str,
        claims: &Claims,
        snapshot: &Snapshot,
        audiences: &[String],
    ) -> Result<TokenUser, String> {
        let own = [self.keys.issuer().to_owned()];
        let wanted = if audiences.is_empty() { own.as_slice() } else { audiences };
        if !wanted.iter().any(|a| a == self.keys.issuer()) {
            return Err("the token is for this API only".to_owned());
        }
        let text = |claim: &Option<String>| claim.clone().unwrap_or_default();
        let namespace = text(&claims.legacy_namespace);
        let account = Reference { name: text(&claims.legacy_account), uid: text(&claims.legacy_account_uid) };
        let secret = text(&claims.legacy_secret);
        alive(snapshot, "serviceaccounts", &namespace, &account, crate::tokens::unix_now())?;
        let entry =
            snapshot.get(&format!("/registry/secrets/{namespace}/{secret}")).ok_or("Token has been invalidated")?;
        let object: serde_json::Value = serde_json::from_slice(&entry.bytes).map_err(|e| e.to_string())?;
        let held = object.pointer("/data/token").and_then(serde_json::Value::as_str).unwrap_or_default();
        if STANDARD.decode(held).ok().as_deref() != Some(token.as_bytes()) {
            return Err("Token does not match server's copy".to_owned());
        }
        Ok(TokenUser { user: account_user(&namespace, &account.name, &account.uid), audiences: own.into() })
    }
}

fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    let own = format!("system:serviceaccounts:{namespace}");
    let mut user =
        UserInfo::new(&format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &own]);
    uid.clone_into(&mut user.uid);
    user
}

/// The object is there, is the one that was meant, and did not start to go before the leeway.
fn alive(snapshot: &Snapshot, storage: &str, namespace: &str, reference: &Reference, now: i64) -> Result<(), String> {
    let name = &reference.name;
    let key = match namespace {
        "" => format!("/registry/{storage}/{name}"),
        _ => format!("/registry/{storage}/{namespace}/{name}"),
    };
    let entry = snapshot.get(&key).ok_or_else(|| format!("{storage} {namespace}/{name} is not there"))?;
    let head: Head = serde_json::from_slice(&entry.bytes).map_err(|e| e.to_string())?;
    if head.metadata.uid != reference.uid {
        let uid = &head.metadata.uid;
        return Err(format!("{storage} UID ({uid}) does not match claim ({})", reference.uid));
    }
    let going = head.metadata.deletion_timestamp.and_then(|t| mini_api::time::parse(&t).ok());
    if going.is_some_and(|at| at.as_second() < now - LEEWAY) {
        return Err(format!("{storage} {namespace}/{name} has been deleted"));
    }
    Ok(())
}
