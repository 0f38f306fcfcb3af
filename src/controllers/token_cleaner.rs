//! Deletes bootstrap tokens when they expire.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use mini_client::{Cache, Caches, Client};

use crate::driver::{Key, Outcome, Source, Writes, optional};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

pub(crate) struct Controller {
    client: Client,
    secrets: Cache<Secret>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), secrets: caches.of() }
    }
}

pub(crate) fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && secret.metadata.namespace.as_deref() == Some(NAMESPACE)
}

/// When a token ends; one whose end cannot be read has ended, as upstream has it.
pub(crate) fn expiration(secret: &Secret) -> Option<Timestamp> {
    let bytes = secret.data.as_ref()?.get("expiration").filter(|bytes| !bytes.0.is_empty())?;
    Some(std::str::from_utf8(&bytes.0).ok().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN))
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::of(&self.secrets, |change| {
            let secret = change.object();
            is_token(secret).then(|| Key::of(secret.as_ref())).into_iter().collect()
        })]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name).filter(|secret| is_token(secret)) else {
            return Ok(None);
        };
        let Some(end) = expiration(&secret) else { return Ok(None) };
        if let Ok(left) = Duration::try_from(end.duration_since(Timestamp::now()))
            && !left.is_zero()
        {
            return Ok(Some(left));
        }
        let (uid, resource_version) = (secret.metadata.uid.clone(), secret.metadata.resource_version.clone());
        let preconditions = Preconditions { uid, resource_version };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        if optional(api.delete(&key.name, &params).await)?.is_some() {
            writes.deleted(&self.secrets, secret.as_ref());
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::{Running, named};

    #[tokio::test]
    async fn tokens_go_when_they_end() {
        let secret = |name: &str, kind: &str, end: &str| {
            let end = base64::engine::general_purpose::STANDARD.encode(end);
            json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": {"expiration": end},
                "metadata": {"name": name, "namespace": NAMESPACE}})
        };
        let running = Running::new(&[
            secret("over", TYPE, "2020-01-01T00:00:00Z"),
            secret("garbled", TYPE, "soon"),
            secret("lasts", TYPE, "2999-01-01T00:00:00Z"),
            secret("endless", TYPE, ""),
            secret("other", "Opaque", "2020-01-01T00:00:00Z"),
        ]);
        running.start(Controller::new(&running.client, &running.caches));
        let gone = |all: &[Value], name: &str| named(all, name).is_null();
        running.api.until("secrets", |all| gone(all, "over") && gone(all, "garbled")).await;
        assert_eq!(running.api.list("secrets").len(), 3);
    }
}
