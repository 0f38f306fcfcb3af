//! A pod's volume claims must exist and be bound before it can be placed.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use mini_client::Cache;

pub(crate) fn check(pod: &Pod, claims: &Cache<PersistentVolumeClaim>) -> Result<(), String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for name in volumes.filter_map(|volume| claim_of(pod, volume)) {
        let Some(claim) = claims.get(namespace, &name).filter(|claim| claim.metadata.deletion_timestamp.is_none())
        else {
            return Err(format!("persistentvolumeclaim {name:?} not found"));
        };
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if !bound {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
    }
    Ok(())
}

fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
}
