//! Every namespace has a ConfigMap `kube-root-ca.crt`, from which pods take the cluster's certificate authority.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mini_client::{Cache, Caches, Client, Scope};
use serde_json::json;

use crate::Config;
use crate::driver::{Error, Key, Outcome, Source, Writes, code, optional};
use crate::service_account::is_active;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "The authority that signed the API server's certificate for addresses inside the cluster, \
                           such as kubernetes.default.svc. Good for nothing else.";

pub(crate) struct Controller {
    client: Client,
    namespaces: Cache<Namespace>,
    maps: Cache<ConfigMap>,
    config: Arc<Config>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, config: &Arc<Config>) -> Self {
        let scope = Scope { fields: Some(format!("metadata.name={NAME}")), ..Scope::default() };
        Self { client: client.clone(), namespaces: caches.of(), maps: caches.scoped(scope), config: config.clone() }
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "root-ca"
    }

    fn sources(&self) -> Vec<Source> {
        let maps = Source::of(&self.maps, |change| {
            vec![Key::new("", change.object().metadata.namespace.clone().unwrap_or_default())]
        });
        vec![Source::own(&self.namespaces), maps]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        if !self.namespaces.get("", &key.name).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(None);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.name);
        let data = json!({FILE: self.config.cluster_ca});
        if let Some(map) = self.maps.get(&key.name, NAME) {
            if json!(map.data) == data && map.binary_data.as_ref().is_none_or(|binary| binary.is_empty()) {
                return Ok(None);
            }
            // Nulls drop whatever else somebody put there.
            let mut wished: serde_json::Map<_, _> =
                map.data.iter().flatten().map(|(name, _)| (name.clone(), serde_json::Value::Null)).collect();
            wished.insert(FILE.to_owned(), json!(self.config.cluster_ca));
            let patch = Patch::Merge(json!({"data": wished, "binaryData": null}));
            if let Some(written) = optional(api.patch(NAME, &PatchParams::default(), &patch).await)? {
                writes.wrote(&self.maps, &written);
            }
            return Ok(None);
        }
        let metadata = json!({"name": NAME, "annotations": {"kubernetes.io/description": DESCRIPTION}});
        let map = serde_json::from_value(json!({"metadata": metadata, "data": data}))
            .map_err(|error| Error::NotYet(error.to_string()))?;
        match api.create(&PostParams::default(), &map).await {
            Ok(created) => writes.wrote(&self.maps, &created),
            Err(error) if matches!(code(&error), 403 | 404 | 409) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::Running;

    #[tokio::test]
    async fn the_authority_is_published_kept_and_restored() {
        let running = Running::new(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})]);
        let config = Config {
            cluster_ca: "PEM".to_owned(),
            sign_legacy_token: Arc::new(|_| Err("none".to_owned())),
            authority: Arc::new(()),
            finished_pods: 1,
            simulated: None,
            node: crate::fake::node(),
        };
        running.start(Controller::new(&running.client, &running.caches, &Arc::new(config)));
        let right = |all: &[serde_json::Value]| all.len() == 1 && all[0]["data"] == json!({FILE: "PEM"});
        running.api.until("configmaps", right).await;
        running.api.edit("configmaps", "a", NAME, |map| map["data"] = json!({FILE: "forged", "more": "x"}));
        running.api.until("configmaps", right).await;
        running.api.remove("v1", "configmaps", "a", NAME);
        running.api.until("configmaps", right).await;
    }
}
