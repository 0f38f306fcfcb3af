//! Signs `kube-public/cluster-info` with every bootstrap token that is for signing, so that who has a token can tell
//! whether what anybody may read there is this cluster's word.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use mini_client::{Cache, Caches, Client, Scope};
use sha2::{Digest, Sha256};

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::token_cleaner::{expiration, is_token};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";
const SECRET: &str = "bootstrap-token-";
/// Bytes that SHA-256 takes at once.
const BLOCK: usize = 64;

pub(crate) struct Controller {
    client: Client,
    maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        let fields = Some(format!("metadata.name={NAME}"));
        let scope = Scope { namespace: Some(NAMESPACE.to_owned()), fields, ..Scope::default() };
        Self { client: client.clone(), maps: caches.scoped(scope), secrets: caches.of() }
    }

    /// The secrets of the tokens that sign, by id, and when the first of them ends.
    fn tokens(&self, now: Timestamp) -> (BTreeMap<String, String>, Option<Timestamp>) {
        let secrets = self.secrets.list_in("kube-system");
        let mut ends = None;
        let mut tokens = BTreeMap::new();
        for secret in secrets.iter().filter(|secret| is_token(secret)) {
            let data = |field: &str| {
                let bytes = secret.data.as_ref().and_then(|data| data.get(field));
                bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).unwrap_or_default()
            };
            let (id, key) = (data("token-id"), data("token-secret"));
            let named = secret.metadata.name.as_deref().and_then(|name| name.strip_prefix(SECRET));
            let end = expiration(secret);
            if named != Some(id.as_str()) || key.is_empty() || data("usage-bootstrap-signing") != "true" {
                continue;
            }
            if end.is_none_or(|end| end > now) {
                ends = [ends, end].into_iter().flatten().min();
                tokens.insert(id, key);
            }
        }
        (tokens, ends)
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    let hashed = Sha256::digest(key);
    let key = if key.len() > BLOCK { hashed.as_slice() } else { key };
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let pass = |mask: u8, message: &[u8]| {
        let mut hash = Sha256::new();
        hash.update(block.map(|byte| byte ^ mask));
        hash.update(message);
        hash.finalize()
    };
    pass(0x5c, &pass(0x36, message)).into()
}

/// A detached JWS (RFC 7515, appendix F) of `content` by HS256.
fn sign(content: &str, id: &str, key: &str) -> String {
    // Ids are plain letters and digits: nothing in them needs quoting.
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let mut signature = format!("{header}..");
    let _ = write!(signature, "{}", URL_SAFE_NO_PAD.encode(hmac(key.as_bytes(), message.as_bytes())));
    signature
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "bootstrap-signer"
    }

    fn sources(&self) -> Vec<Source> {
        let secrets = Source::of(&self.secrets, |change| {
            if change.states().any(|secret| is_token(secret)) { vec![Key::new(NAMESPACE, NAME)] } else { Vec::new() }
        });
        vec![Source::own(&self.maps), secrets]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(map) = self.maps.get(&key.namespace, &key.name) else { return Ok(None) };
        let data = map.data.clone().unwrap_or_default();
        let Some(content) = data.get(CONTENT) else { return Ok(None) };
        let now = Timestamp::now();
        let (tokens, end) = self.tokens(now);
        let mut wished: BTreeMap<_, _> =
            data.clone().into_iter().filter(|(field, _)| !field.starts_with(SIGNATURE)).collect();
        wished.extend(tokens.iter().map(|(id, key)| (format!("{SIGNATURE}{id}"), sign(content, id, key))));
        if wished != data {
            let mut next = map.as_ref().clone();
            next.data = Some(wished);
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
            if let Some(written) = optional(api.replace(NAME, &PostParams::default(), &next).await)? {
                writes.wrote(&self.maps, &written);
            }
        }
        Ok(end.and_then(|end| end.duration_since(now).try_into().ok()))
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::{Running, named};

    #[test]
    fn signatures_are_those_of_the_standard() {
        // RFC 4231, cases 2 and 6.
        let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        // Upstream's own example.
        let expected = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8";
        assert_eq!(
            sign(
                "Hello from the other side. I must have called a thousand times.",
                "joshua",
                "my voice is my passcode"
            ),
            expected
        );
    }

    #[tokio::test]
    async fn tokens_sign_as_long_as_they_last_and_may() {
        let secret = |id: &str, usage: &str, end: &str| {
            let data = [
                ("token-id", id),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-signing", usage),
                ("expiration", end),
            ];
            let data: serde_json::Map<_, _> =
                data.into_iter().map(|(field, value)| (field.to_owned(), json!(STANDARD.encode(value)))).collect();
            json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": data,
                "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"}})
        };
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {"kubeconfig": "words", "jws-kubeconfig-gone00": "x", "other": "kept"}});
        let running = Running::new(&[
            map,
            secret("signs0", "true", ""),
            secret("silent", "false", ""),
            secret("over00", "true", "2020-01-01T00:00:00Z"),
        ]);
        running.start(Controller::new(&running.client, &running.caches));
        let fields = |maps: &[Value]| {
            let data = named(maps, NAME)["data"].as_object().cloned().unwrap_or_default();
            data.keys().cloned().collect::<Vec<_>>()
        };
        running.api.until("configmaps", |maps| fields(maps) == ["jws-kubeconfig-signs0", "kubeconfig", "other"]).await;
        running.api.remove("v1", "secrets", "kube-system", "bootstrap-token-signs0");
        running.api.until("configmaps", |maps| fields(maps) == ["kubeconfig", "other"]).await;
    }
}
