//! Fills Secrets of type `kubernetes.io/service-account-token`; deletes those whose account is gone.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use mini_client::{Cache, Caches, Client, Scope};
use serde_json::json;

use crate::Config;
use crate::driver::{Error, Key, Outcome, Source, Writes, optional};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Whom a legacy token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyToken {
    pub namespace: String,
    pub account: String,
    pub account_uid: String,
    pub secret: String,
}

/// Makes the token; an error is told in the log and tried again.
pub type SignLegacyToken = Arc<dyn Fn(&LegacyToken) -> Result<String, String> + Send + Sync>;

pub(crate) struct Controller {
    client: Client,
    secrets: Cache<Secret>,
    accounts: Cache<ServiceAccount>,
    config: Arc<Config>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, config: &Arc<Config>) -> Self {
        let scope = Scope { fields: Some(format!("type={TYPE}")), ..Scope::default() };
        Self { client: client.clone(), secrets: caches.scoped(scope), accounts: caches.of(), config: config.clone() }
    }
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "legacy-token"
    }

    fn sources(&self) -> Vec<Source> {
        let secrets = self.secrets.clone();
        let accounts = Source::of(&self.accounts, move |change| {
            let meta = &change.object().metadata;
            let names_it = |secret: &Arc<Secret>| annotation(secret, ACCOUNT) == meta.name.as_deref();
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            secrets.list_in(namespace).iter().filter(|s| names_it(s)).map(|s| Key::of(s.as_ref())).collect()
        });
        vec![Source::own(&self.secrets), accounts]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(account_name) = annotation(&secret, ACCOUNT) else { return Ok(None) };
        if secret.type_.as_deref() != Some(TYPE) || secret.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let account = match self.accounts.get(&key.namespace, account_name) {
            Some(account) => Some(account),
            // The cache may not know the account yet: a Secret is not deleted on hearsay.
            None => {
                let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
                accounts.get_opt(account_name).await?.map(Arc::new)
            }
        };
        let uid = account.as_ref().and_then(|account| account.metadata.uid.clone()).unwrap_or_default();
        let another = annotation(&secret, UID).is_some_and(|told| !told.is_empty() && told != uid);
        if account.is_none() || another {
            let preconditions = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            if optional(api.delete(&key.name, &params).await)?.is_some() {
                writes.deleted(&self.secrets, secret.as_ref());
            }
            return Ok(None);
        }
        let data = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        let has_token = data("token").is_some_and(|token| !token.is_empty());
        let ca = self.config.cluster_ca.as_bytes();
        if has_token
            && data("ca.crt") == Some(ca)
            && data("namespace") == Some(key.namespace.as_bytes())
            && annotation(&secret, UID).is_some()
        {
            return Ok(None);
        }
        let mut wished =
            json!({"ca.crt": BASE64_STANDARD.encode(ca), "namespace": BASE64_STANDARD.encode(&key.namespace)});
        if !has_token {
            let token = LegacyToken {
                namespace: key.namespace.clone(),
                account: account_name.to_owned(),
                account_uid: uid.clone(),
                secret: key.name.clone(),
            };
            let token = (self.config.sign_legacy_token)(&token).map_err(Error::NotYet)?;
            wished["token"] = json!(BASE64_STANDARD.encode(token));
        }
        let meta = json!({"uid": secret.metadata.uid, "annotations": {UID: uid}});
        let patch = Patch::Merge(json!({"metadata": meta, "data": wished}));
        if let Some(written) = optional(api.patch(&key.name, &PatchParams::default(), &patch).await)? {
            writes.wrote(&self.secrets, &written);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Running, named};

    #[tokio::test]
    async fn token_secrets_are_filled_and_go_with_their_account() {
        let secret = |name: &str, account: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE,
                "metadata": {"name": name, "namespace": "a", "annotations": {ACCOUNT: account}}})
        };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "robot", "namespace": "a", "uid": "u-robot"}});
        let running = Running::new(&[account, secret("t", "robot"), secret("stray", "nobody")]);
        let config = Config {
            cluster_ca: "PEM".to_owned(),
            sign_legacy_token: Arc::new(|token| Ok(format!("{}/{}/{}", token.namespace, token.account, token.secret))),
            authority: Arc::new(()),
            finished_pods: 1,
            simulated: None,
            node: crate::fake::node(),
        };
        running.start(Controller::new(&running.client, &running.caches, &Arc::new(config)));
        running
            .api
            .until("secrets", |all| {
                let data = &named(all, "t")["data"];
                all.len() == 1
                    && data["token"] == BASE64_STANDARD.encode("a/robot/t")
                    && data["namespace"] == BASE64_STANDARD.encode("a")
                    && named(all, "t")["metadata"]["annotations"][UID] == "u-robot"
            })
            .await;
        running.api.remove("v1", "serviceaccounts", "a", "robot");
        running.api.until("secrets", <[_]>::is_empty).await;
    }
}
