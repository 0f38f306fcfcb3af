//! An operator as its author would write it with `kube`: a kind of its own, a finalizer, owned objects, status, events.

use crate::cluster::{Cluster, until};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::finalizer::{Event as Step, finalizer};
use kube::runtime::watcher;
use kube::{Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gardens.plants.example.com}
spec:
  group: plants.example.com
  scope: Namespaced
  names: {plural: gardens, singular: garden, kind: Garden, shortNames: [gdn]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Planted, type: integer, jsonPath: .status.planted}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {plants: {type: array, x-kubernetes-list-type: set, items: {type: string, maxLength: 20}}}
          status:
            type: object
            properties: {planted: {type: integer}, observedGeneration: {type: integer}}
";

const NAME: &str = "gardener.plants.example.com";

type Failed = kube::runtime::finalizer::Error<kube::Error>;

struct Gardener {
    client: Client,
    kind: ApiResource,
    recorder: Recorder,
    rounds: AtomicUsize,
}

impl Gardener {
    fn gardens(&self, space: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), space, &self.kind)
    }

    fn maps(&self, space: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), space)
    }

    /// One config map for each plant, none besides, and the count of them as status.
    async fn plant(&self, garden: &DynamicObject) -> Result<Action, kube::Error> {
        let (space, name) = (garden.namespace().unwrap(), garden.name_any());
        let wanted: Vec<&str> =
            garden.data["spec"]["plants"].as_array().into_iter().flatten().flat_map(Value::as_str).collect();
        let apply = PatchParams::apply(NAME).force();
        for plant in &wanted {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"plant": plant},
                "metadata": {"name": format!("{name}-{plant}"), "labels": {"garden": name},
                             "ownerReferences": [garden.controller_owner_ref(&self.kind)]}});
            self.maps(&space).patch(&format!("{name}-{plant}"), &apply, &Patch::Apply(map)).await?;
        }
        for map in self.maps(&space).list(&ListParams::default().labels(&format!("garden={name}"))).await? {
            if !wanted.iter().any(|plant| map.name_any() == format!("{name}-{plant}")) {
                self.maps(&space).delete(&map.name_any(), &DeleteParams::default()).await?;
            }
        }
        let status = json!({"planted": wanted.len(), "observedGeneration": garden.metadata.generation});
        if garden.data["status"] != status {
            let patch = json!({"apiVersion": self.kind.api_version, "kind": self.kind.kind, "status": status});
            self.gardens(&space).patch_status(&name, &apply, &Patch::Apply(patch)).await?;
            let event = Event {
                type_: EventType::Normal,
                reason: "Planted".to_owned(),
                note: Some(format!("{} plants", wanted.len())),
                action: "Plant".to_owned(),
                secondary: None,
            };
            self.recorder.publish(&event, &garden.object_ref(&self.kind)).await?;
        }
        Ok(Action::await_change())
    }

    /// What is left of a garden is said before it goes.
    async fn compost(&self, garden: &DynamicObject) -> Result<Action, kube::Error> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "compost"},
                         "data": {garden.name_any(): garden.data["status"]["planted"].to_string()}});
        let apply = PatchParams::apply(NAME).force();
        self.maps(&garden.namespace().unwrap()).patch("compost", &apply, &Patch::Apply(map)).await?;
        Ok(Action::await_change())
    }
}

async fn reconcile(garden: Arc<DynamicObject>, gardener: Arc<Gardener>) -> Result<Action, Failed> {
    gardener.rounds.fetch_add(1, Ordering::SeqCst);
    let gardens = gardener.gardens(&garden.namespace().unwrap());
    finalizer(&gardens, NAME, garden, |step| async {
        match step {
            Step::Apply(garden) => gardener.plant(&garden).await,
            Step::Cleanup(garden) => gardener.compost(&garden).await,
        }
    })
    .await
}

pub(crate) fn operator(cluster: &Cluster, space: &str) {
    cluster.pipe(space, "apply", DEFINITION);
    cluster.kubectl(space, &["wait", "--for=condition=Established", "crd/gardens.plants.example.com", "--timeout=10s"]);
    let kubeconfig = Kubeconfig::from_yaml(&std::fs::read_to_string(cluster.kubeconfig()).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    });
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("plants.example.com", "v1", "Garden"));
    let recorder = Recorder::new(client.clone(), NAME.into());
    let gardener = Arc::new(Gardener { client, kind: kind.clone(), recorder, rounds: AtomicUsize::new(0) });
    let gardens = gardener.gardens(space);
    let controller = Controller::new_with(gardens.clone(), watcher::Config::default(), kind.clone())
        .owns(gardener.maps(space), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), gardener.clone());
    let running = runtime.spawn(controller.for_each(|_| async {}));

    let plants = || cluster.kubectl(space, &["get", "configmaps", "-l", "garden=yard", "-o", "name"]);
    let status = || cluster.field(space, "garden/yard", ".status.planted}/{.status.observedGeneration");
    let garden = DynamicObject::new("yard", &kind).data(json!({"spec": {"plants": ["rose", "tulip"]}}));
    runtime.block_on(gardens.create(&PostParams::default(), &garden)).unwrap();
    until("two plants", || status() == "2/1");
    assert_eq!(plants(), "configmap/yard-rose\nconfigmap/yard-tulip\n");
    assert_eq!(cluster.field(space, "garden/yard", ".metadata.finalizers"), format!("[\"{NAME}\"]"));
    let owner = cluster.field(space, "configmap/yard-rose", ".metadata.ownerReferences[0]['kind','name','controller']");
    assert_eq!(owner, "Garden yard true");
    assert!(
        cluster.kubectl(space, &["get", "gdn"]).lines().any(|line| line.split_whitespace().take(2).eq(["yard", "2"]))
    );
    until("its event", || cluster.kubectl(space, &["events", "--for=garden/yard"]).contains("2 plants"));

    // Whoever takes or changes what is the operator's gets it back as it was.
    cluster.kubectl(space, &["delete", "configmap", "yard-tulip"]);
    until("the tulip again", || plants().contains("yard-tulip"));
    cluster
        .kubectl(space, &["patch", "configmap", "yard-rose", "-p", r#"{"data": {"plant": "weed", "note": "mine"}}"#]);
    until("the rose again", || cluster.field(space, "configmap/yard-rose", ".data['plant','note']") == "rose mine");

    cluster.kubectl(space, &["patch", "garden", "yard", "--type=merge", "-p", r#"{"spec": {"plants": ["rose"]}}"#]);
    until("one plant", || status() == "1/2" && plants() == "configmap/yard-rose\n");

    // Nothing is left to do: the operator's own writes do not wake it for ever.
    std::thread::sleep(Duration::from_millis(500));
    let rounds = gardener.rounds.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(gardener.rounds.load(Ordering::SeqCst), rounds);

    // The finalizer comes before the end, and the collector after it.
    cluster.kubectl(space, &["delete", "garden", "yard", "--timeout=30s"]);
    assert_eq!(cluster.field(space, "configmap/compost", ".data.yard"), "1");
    until("the collector", || plants().is_empty());

    running.abort();
    cluster.kubectl(space, &["delete", "crd", "gardens.plants.example.com", "--timeout=30s"]);
}
