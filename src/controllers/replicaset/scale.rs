//! Creating what is missing and deleting what is too much.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Controller, ReplicaOwner, Wish};
use crate::driver::{Error, Writes};
use crate::pod_control::pod_of;
use crate::pods;

/// Pods created or deleted by one reconcile.
const BURST: usize = 500;

impl<O: ReplicaOwner> Controller<O> {
    pub(super) async fn scale(
        &self,
        owner: &O,
        wish: &Wish<'_>,
        active: &[Arc<Pod>],
        writes: &mut Writes,
    ) -> Result<(), Error> {
        if active.len() < wish.replicas {
            let missing = (wish.replicas - active.len()).min(BURST);
            let pods = std::iter::repeat_n(pod_of(owner, wish.template), missing);
            self.control.create(owner, pods.collect(), writes).await?;
        } else if active.len() > wish.replicas {
            let mut ranked = active.to_vec();
            pods::sort_for_deletion(&mut ranked);
            ranked.truncate((active.len() - wish.replicas).min(BURST));
            self.control.delete(owner, &ranked, writes).await?;
        }
        Ok(())
    }
}
