//! StatefulSet: pods with names, an order and volumes of their own.
//!
//! Pod `web-2` is always made anew under the same name with the same claims. Unless the set allows it, nothing is done
//! to a pod before all pods below it are there, ready and of their right revision.

mod claims;
mod identity;
mod status;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::Selector;
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};

use crate::driver::{Error, Key, Outcome, Source, Writes, code, message};
use crate::owner::{self, controller_named, controller_of, matches};
use crate::pods;
use crate::revisions::{self, POD_LABEL, Revisions};

const HASH_LABEL: &str = "controller.kubernetes.io/hash";

pub(crate) struct Controller {
    client: Client,
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    revisions: Revisions,
    recorder: Recorder,
}

/// A StatefulSet in the middle of a reconcile.
struct Round<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// The revision that pods below the partition keep, and that which all others get.
    current: Arc<ControllerRevision>,
    update: Arc<ControllerRevision>,
    current_template: PodTemplateSpec,
    collisions: Option<i32>,
    /// How many there should be.
    wanted: usize,
    /// The pods there are, by ordinal from the first on.
    replicas: BTreeMap<usize, Arc<Pod>>,
    /// Pods of other ordinals, highest first.
    condemned: Vec<Arc<Pod>>,
    now: Timestamp,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        Self {
            client: client.clone(),
            sets: caches.of(),
            pods: caches.of(),
            claims: caches.of(),
            revisions: Revisions::new(client, caches, HASH_LABEL),
            recorder,
        }
    }

    fn pods_api(&self, set: &StatefulSet) -> Api<Pod> {
        Api::namespaced(self.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Tells what became of a write about a pod, as upstream words it.
    fn tell(&self, round: &Round<'_>, verb: &str, pod: &Pod, error: Option<&kube::Error>) {
        let (pod, set) = (pod_name(pod), round.name());
        let done = match verb {
            "create" => "Create",
            "delete" => "Delete",
            _ => "Update",
        };
        let (kind, reason, end) = match error {
            None => (EventType::Normal, format!("Successful{done}"), "successful".to_owned()),
            Some(error) => (EventType::Warning, format!("Failed{done}"), format!("failed error: {}", message(error))),
        };
        let said = format!("{verb} Pod {pod} in StatefulSet {set} {end}");
        self.recorder.event(&reference(round.set), kind, &reason, said);
    }

    async fn create(&self, round: &Round<'_>, ordinal: i32, writes: &mut Writes) -> Result<(), Error> {
        let pod = round.pod(ordinal);
        self.make_claims(round, &pod, writes).await?;
        match self.pods_api(round.set).create(&PostParams::default(), &pod).await {
            Ok(made) => {
                self.tell(round, "create", &pod, None);
                writes.wrote(&self.pods, &made);
                Ok(())
            }
            Err(error) if crate::pod_control::namespace_is_leaving(&error) => Ok(()),
            Err(error) => {
                // A pod of that name is there, and not the set's: its end will be seen.
                if code(&error) != 409 {
                    self.tell(round, "create", &pod, Some(&error));
                }
                Err(error.into())
            }
        }
    }

    async fn delete(&self, round: &Round<'_>, pod: &Arc<Pod>, writes: &mut Writes) -> Result<(), Error> {
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.pods_api(round.set).delete(pod_name(pod), &params).await {
            Ok(_) => self.tell(round, "delete", pod, None),
            Err(error) if code(&error) == 404 => {}
            Err(error) => {
                self.tell(round, "delete", pod, Some(&error));
                return Err(error.into());
            }
        }
        writes.deleted(&self.pods, pod.as_ref());
        Ok(())
    }
}

fn selector(set: &StatefulSet) -> Option<Selector> {
    let selector = Selector::try_from(set.spec.selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn revision_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_LABEL)).map_or("", String::as_str)
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Its set and ordinal, by its name.
fn parse(pod: &Pod) -> Option<(&str, i32)> {
    let (set, ordinal) = pod_name(pod).rsplit_once('-')?;
    Some((set, ordinal.parse().ok().filter(|ordinal: &i32| *ordinal >= 0)?))
}

fn runs(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

impl Round<'_> {
    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    /// One pod after the other.
    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod, again: &mut Option<Duration>) -> bool {
        runs(pod) && pods::availability(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now).note(again)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.replicas.values().chain(&self.condemned)
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn sources(&self) -> Vec<Source> {
        let sets = self.sets.clone();
        let pods = Source::both(&self.pods, move |pod| {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            if let Some(name) = controller_named::<StatefulSet>(&pod.metadata) {
                return vec![Key::new(namespace, name)];
            }
            // Also another's pod: it may bear the name that a pod of the set waits for.
            let (Some((name, _)), foreign) = (parse(pod), controller_of(&pod.metadata).is_some()) else {
                return Vec::new();
            };
            let set = sets.get(namespace, name);
            let selects = |set: &StatefulSet| selector(set).is_some_and(|s| foreign || matches(&s, &pod.metadata));
            set.filter(|set| selects(set)).map(|set| Key::of(set.as_ref())).into_iter().collect()
        });
        let revisions = owner::controlled::<StatefulSet, _>(&self.revisions.cache);
        vec![Source::own(&self.sets), pods, revisions, claims::source(&self.claims, &self.sets)]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(None) };
        let (spec, Some(selector)) = (&set.spec, selector(&set)) else { return Ok(None) };
        if set.metadata.deletion_timestamp.is_some() {
            // The garbage collector takes away what it had; nothing is made anew for it.
            return Ok(None);
        }
        let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history = self.revisions.history(set.as_ref(), &selector, &spec.template, &mut collisions, writes).await?;
        let candidates = self.pods.list_in(&key.namespace);
        let named = candidates.into_iter().filter(|pod| parse(pod).is_some_and(|(name, _)| name == key.name));
        let all = owner::claim(&self.client, set.as_ref(), &selector, named.collect(), &self.pods, writes).await?;
        let told = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = history.all.iter().find(|revision| Some(revisions::name(revision)) == told);
        let current = current.unwrap_or(&history.update).clone();
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or_default();
        let mut round = Round {
            set: &set,
            spec,
            current_template: revisions::template(&current).unwrap_or_else(|| spec.template.clone()),
            current,
            update: history.update,
            collisions,
            wanted,
            replicas: BTreeMap::new(),
            condemned: Vec::new(),
            now: Timestamp::now(),
        };
        round.sort(all);
        let mut again = None;
        let done = self.update(&round, &mut again, writes).await;
        self.write_status(&round, &mut again, writes).await?;
        done?;
        let in_use = |revision: &ControllerRevision| {
            let name = revisions::name(revision);
            [&round.current, &round.update].iter().any(|used| revisions::name(used) == name)
                || round.all().any(|pod| revision_of(pod) == name)
        };
        self.revisions.truncate(set.as_ref(), &history.all, in_use, spec.revision_history_limit, writes).await?;
        Ok(again)
    }
}

#[cfg(test)]
mod tests;
