//! Every namespace has a ServiceAccount `default`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use mini_client::{Cache, Caches, Client};

use crate::driver::{Key, Outcome, Source, Writes, code};

const NAME: &str = "default";

pub(crate) struct Controller {
    client: Client,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), namespaces: caches.of(), accounts: caches.of() }
    }
}

/// Whether a namespace takes new objects.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn sources(&self) -> Vec<Source> {
        let accounts = Source::of(&self.accounts, |change| match change {
            mini_client::Change::Deleted(account) if account.metadata.name.as_deref() == Some(NAME) => {
                vec![Key::new("", account.metadata.namespace.clone().unwrap_or_default())]
            }
            _ => Vec::new(),
        });
        vec![Source::own(&self.namespaces), accounts]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let active = self.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace));
        if !active || self.accounts.get(&key.name, NAME).is_some() {
            return Ok(None);
        }
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Ok(created) => writes.wrote(&self.accounts, &created),
            // Made by somebody else, or the namespace is leaving or gone.
            Err(error) if matches!(code(&error), 403 | 404 | 409) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Running;

    fn namespace(name: &str, phase: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": phase}})
    }

    #[tokio::test]
    async fn active_namespaces_get_their_account_and_get_it_back() {
        let running = Running::new(&[namespace("a", "Active"), namespace("going", "Terminating")]);
        running.start(Controller::new(&running.client, &running.caches));
        running.api.until("serviceaccounts", |all| all.len() == 1 && all[0]["metadata"]["namespace"] == "a").await;
        running.api.remove("v1", "serviceaccounts", "a", NAME);
        running.api.until("serviceaccounts", |all| all.len() == 1).await;
    }
}
