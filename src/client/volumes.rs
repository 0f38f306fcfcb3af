//! What a claim asks of a volume: shared by the binder, which binds, and the scheduler, which chooses a node first.
//!
//! Pure functions over typed views; upstream's rules (`FindMatchingVolume`) and annotation names.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{Selector, SelectorExt};
use mini_api::quantity::Quantity;

/// The claim and its volume know each other: nothing is to be chosen any more.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The binder chose the other side; without it the user did.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Which provisioner made the volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Which provisioner shall make a volume for the claim.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node on which the volume of the claim will be needed; the scheduler writes it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes somebody makes by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The class that a claim asks for; `None` where it does not say, which is not the same as none (`""`).
#[must_use]
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, OLD_CLASS).or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref())
}

fn volume_class(volume: &PersistentVolume) -> &str {
    let own = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, OLD_CLASS).or_else(own).unwrap_or_default()
}

/// Whether volumes of this class wait for a pod.
#[must_use]
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The volume a claim names, if any.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Both sides of the claim's binding are written.
#[must_use]
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_some() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// Whether the volume is promised to this claim, by name or by uid.
#[must_use]
pub fn is_promised_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// Bytes that the claim asks for.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|requests| amount(requests.get("storage")?)).unwrap_or_default()
}

fn offered(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| amount(capacity.get("storage")?)).unwrap_or_default()
}

fn amount(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Option<i64> {
    Quantity::parse(&quantity.0).ok().map(|quantity| quantity.value())
}

/// Why a volume that is not chosen by the binder cannot serve the claim, in upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if offered(volume) < requested(claim) {
        Some("requested PV is too small")
    } else if volume_class(volume) != claim_class(claim).unwrap_or_default() {
        Some("storageClassName does not match")
    } else if mode_of_volume(volume) != mode_of_claim(claim) {
        Some("incompatible volumeMode")
    } else if !has_modes(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

fn mode_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn mode_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| offered.contains(mode))
}

/// The volume that a claim gets: the one promised to it, else the smallest available one that serves.
///
/// `node`: whether a volume can be used where the scheduler wants it; `None` is the binder's look, which with
/// `delayed` leaves the choice to the scheduler.
pub fn find<'a, V: AsRef<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
    delayed: bool,
    node: Option<&dyn Fn(&PersistentVolume) -> bool>,
    taken: &HashSet<String>,
) -> Option<&'a V> {
    let selector: Option<Selector> = match claim.spec.as_ref().and_then(|spec| spec.selector.clone()) {
        // A selector that cannot be read selects nothing.
        Some(selector) => Some(Selector::try_from(selector).ok()?),
        None => None,
    };
    let reachable = |volume: &PersistentVolume| node.is_none_or(|fits| fits(volume));
    let mut best: Option<(i64, &V)> = None;
    for candidate in volumes {
        let volume = candidate.as_ref();
        let promised = is_promised_to(volume, claim);
        let held = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) && !promised;
        if held
            || taken.contains(volume.metadata.name.as_deref().unwrap_or_default())
            || offered(volume) < requested(claim)
            || mode_of_volume(volume) != mode_of_claim(claim)
            || volume.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        if promised {
            return reachable(volume).then_some(candidate);
        }
        static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        let labels = volume.metadata.labels.as_ref().unwrap_or(&NONE);
        let available = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available");
        let serves = !(delayed && node.is_none())
            && available
            && selector.as_ref().is_none_or(|selector| selector.matches(labels))
            && volume_class(volume) == claim_class(claim).unwrap_or_default()
            && has_modes(volume, claim)
            && reachable(volume);
        if serves && best.is_none_or(|(size, _)| offered(volume) < size) {
            best = Some((offered(volume), candidate));
        }
    }
    best.map(|(_, volume)| volume)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, extra: &Value) -> Arc<PersistentVolume> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]});
        for (field, value) in extra.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let all = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": spec,
            "status": {"phase": "Available"}});
        Arc::new(serde_json::from_value(all).unwrap())
    }

    fn claim(extra: &Value) -> PersistentVolumeClaim {
        let mut spec = json!({"resources": {"requests": {"storage": "5Gi"}}, "accessModes": ["ReadWriteOnce"]});
        for (field, value) in extra.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "a", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn found(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> String {
        let found = find(claim, volumes, false, None, &HashSet::new());
        found.and_then(|volume| volume.metadata.name.clone()).unwrap_or_default()
    }

    #[test]
    fn the_smallest_that_serves_is_taken() {
        let plain = json!({});
        let volumes = [
            volume("big", "10Gi", &plain),
            volume("fit", "6Gi", &plain),
            volume("small", "1Gi", &plain),
            volume("block", "5Gi", &json!({"volumeMode": "Block"})),
            volume("class", "5Gi", &json!({"storageClassName": "fast"})),
            volume("shared", "5Gi", &json!({"accessModes": ["ReadWriteMany"]})),
            volume("taken", "5Gi", &json!({"claimRef": {"name": "other", "namespace": "a"}})),
        ];
        assert_eq!(found(&claim(&plain), &volumes), "fit");
        assert_eq!(found(&claim(&json!({"storageClassName": "fast"})), &volumes), "class");
        assert_eq!(found(&claim(&json!({"accessModes": ["ReadWriteMany"]})), &volumes), "shared");
        assert_eq!(found(&claim(&json!({"selector": {"matchLabels": {"name": "big"}}})), &volumes), "big");
    }

    #[test]
    fn a_promise_wins_unless_it_is_to_another_of_the_name() {
        let promise =
            |uid: &str| volume("p", "20Gi", &json!({"claimRef": {"name": "c", "namespace": "a", "uid": uid}}));
        let fit = volume("fit", "6Gi", &json!({}));
        assert_eq!(found(&claim(&json!({})), &[fit.clone(), promise("")]), "p");
        assert_eq!(found(&claim(&json!({})), &[fit.clone(), promise("u")]), "p");
        assert_eq!(found(&claim(&json!({})), &[fit, promise("earlier")]), "fit");
    }

    #[test]
    fn a_delayed_claim_is_the_schedulers_to_bind() {
        let volumes = [volume("fit", "6Gi", &json!({}))];
        let claim = claim(&json!({}));
        assert!(find(&claim, &volumes, true, None, &HashSet::new()).is_none());
        assert!(find(&claim, &volumes, true, Some(&|_| true), &HashSet::new()).is_some());
        assert!(find(&claim, &volumes, true, Some(&|_| false), &HashSet::new()).is_none());
    }
}
