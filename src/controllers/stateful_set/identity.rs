//! What makes a pod the set's pod of its ordinal: name, labels, host name and claims.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, Volume};

use super::{Round, parse, pod_name};
use crate::pod_control::pod_of;
use crate::revisions::{self, POD_LABEL};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

impl Round<'_> {
    /// Pods to their places.
    pub(super) fn sort(&mut self, pods: Vec<Arc<Pod>>) {
        for pod in pods {
            let at = parse(&pod).and_then(|(_, ordinal)| usize::try_from(ordinal.checked_sub(self.first())?).ok());
            match at.filter(|at| *at < self.wanted) {
                Some(at) => drop(self.replicas.insert(at, pod)),
                None => self.condemned.push(pod),
            }
        }
        self.condemned.sort_by_key(|pod| std::cmp::Reverse(parse(pod).map(|(_, ordinal)| ordinal)));
    }

    pub(super) fn ordinal(&self, at: usize) -> i32 {
        self.first().saturating_add(i32::try_from(at).unwrap_or(i32::MAX))
    }

    pub(super) fn partition(&self) -> usize {
        let strategy = self.spec.update_strategy.as_ref();
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition);
        usize::try_from(partition.unwrap_or_default()).unwrap_or_default()
    }

    pub(super) fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    /// The pod of an ordinal, in the revision that it is to have.
    pub(super) fn pod(&self, ordinal: i32) -> Pod {
        let place = usize::try_from(ordinal - self.first()).unwrap_or_default();
        let keeps = self.is_rolling() && place < self.partition();
        let (template, revision) =
            if keeps { (&self.current_template, &self.current) } else { (&self.spec.template, &self.update) };
        let mut pod = pod_of(self.set, template);
        let name = format!("{}-{ordinal}", self.name());
        pod.metadata.generate_name = None;
        pod.metadata.name = Some(name.clone());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(NAME_LABEL.to_owned(), name.clone());
        labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
        labels.insert(POD_LABEL.to_owned(), revisions::name(revision).to_owned());
        if let Some(spec) = &mut pod.spec {
            spec.hostname = Some(name.clone());
            spec.subdomain = self.spec.service_name.clone().filter(|service| !service.is_empty());
            let volumes = spec.volumes.get_or_insert_default();
            for (volume, claim) in self.claim_names(&name) {
                volumes.retain(|other| other.name != volume);
                volumes.push(Volume {
                    name: volume,
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: claim,
                        read_only: Some(false),
                    }),
                    ..Volume::default()
                });
            }
        }
        pod
    }

    /// The volume and the claim of each claim template, for a pod.
    pub(super) fn claim_names(&self, pod: &str) -> Vec<(String, String)> {
        let templates = self.spec.volume_claim_templates.iter().flatten();
        let names = templates.map(|template| template.metadata.name.clone().unwrap_or_default());
        names.map(|name| (name.clone(), format!("{name}-{pod}"))).collect()
    }

    /// The labels that a pod lacks to be known by its name.
    pub(super) fn missing_labels(pod: &Pod) -> Vec<(&'static str, String)> {
        let ordinal = parse(pod).map(|(_, ordinal)| ordinal.to_string()).unwrap_or_default();
        let wanted = [(NAME_LABEL, pod_name(pod).to_owned()), (INDEX_LABEL, ordinal)];
        let has = |name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name));
        wanted.into_iter().filter(|(name, value)| has(name) != Some(value)).collect()
    }
}
