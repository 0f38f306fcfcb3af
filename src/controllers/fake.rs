//! For the tests of this room: one controller, or several, against the fake API server, with a fake kubelet.

use mini_client::testing::FakeApi;
use mini_client::{Caches, CancellationToken, Change, Client};
use serde_json::{Value, json};

use crate::driver::{self, Controller};

pub(crate) struct Running {
    pub(crate) api: FakeApi,
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Running {
    pub(crate) fn new(objects: &[Value]) -> Self {
        let api = FakeApi::default();
        for object in objects {
            api.put(object);
        }
        let (client, cancel) = (api.client(), CancellationToken::new());
        let caches = Caches::new(client.clone(), cancel.clone());
        Self { api, client, caches, cancel }
    }

    pub(crate) fn start<C: Controller>(&self, controller: C) {
        tokio::spawn(driver::run(controller, self.cancel.clone()).1);
    }

    pub(crate) fn recorder(&self) -> mini_client::Recorder {
        mini_client::Recorder::new(self.client.clone(), "test", "")
    }

    /// Runs every pod: ready at once, gone at once when deleted.
    pub(crate) fn kubelet(&self) {
        let (api, pods) = (self.api.clone(), self.caches.of::<k8s_openapi::api::core::v1::Pod>());
        tokio::spawn(async move {
            let mut number = 0;
            let mut changes = pods.subscribe();
            while let Some(change) = changes.next().await {
                let meta = &change.object().metadata;
                let (namespace, name) =
                    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
                if matches!(change, Change::Deleted(_)) {
                    continue;
                }
                if meta.deletion_timestamp.is_some() {
                    api.remove("v1", "pods", namespace, name);
                } else if !crate::pods::is_ready(change.object()) {
                    number += 1;
                    api.edit("pods", namespace, name, |pod| run(pod, number));
                }
            }
        });
    }
}

/// Makes a pod a running, ready one with an address.
pub(crate) fn run(pod: &mut Value, number: u32) {
    const TERMS: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let aim = pod.pointer(TERMS).map(|terms| terms[0]["matchFields"][0]["values"][0].clone());
    pod["spec"]["nodeName"] = aim.unwrap_or(json!("node"));
    pod["status"] = json!({"phase": "Running", "podIP": format!("10.1.0.{number}"),
        "podIPs": [{"ip": format!("10.1.0.{number}")}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
}

pub(crate) fn named<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    objects.iter().find(|object| object["metadata"]["name"] == name).unwrap_or(&NONE)
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&NONE)
}

/// The machine that controllers think they are on.
pub(crate) fn node() -> crate::Node {
    crate::Node { name: "n".to_owned(), address: [192, 0, 2, 1].into(), volumes: "/nowhere".into() }
}
