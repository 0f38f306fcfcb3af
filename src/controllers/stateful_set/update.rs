//! What is done next: a pod made, deleted or replaced, in order where the set asks for order.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use mini_client::{EventType, reference};
use serde_json::{Map, json};

use super::{Controller, Round, is_leaving, pod_name, revision_of, runs};
use crate::driver::{Error, Writes};
use crate::{pods, revisions};

/// Pods created by one reconcile.
const BURST: usize = 250;

impl Controller {
    pub(super) async fn update(
        &self,
        round: &Round<'_>,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let (mut settled, mut missing) = (true, 0);
        for at in 0..round.wanted {
            missing += usize::from(!round.replicas.contains_key(&at));
            if missing > BURST {
                // The changes that these make bring the next round.
                settled = false;
                break;
            }
            let done = self.settle(round, at, again, writes).await?;
            if !done && round.is_ordered() {
                return Ok(());
            }
            settled &= done;
        }
        for pod in &round.condemned {
            self.own_claims(round, pod, true, writes).await?;
        }
        // With order, the lowest pod that is unwell may go before those above it.
        let unwell = round.all().filter(|pod| !runs(pod) || is_leaving(pod)).min_by_key(|pod| super::parse(pod));
        let unwell = unwell.map(|pod| pod_name(pod).to_owned());
        for pod in &round.condemned {
            if round.is_ordered() {
                let waits = !round.is_available(pod, again) && Some(pod_name(pod)) != unwell.as_deref();
                if is_leaving(pod) || waits {
                    return Ok(());
                }
            }
            if !is_leaving(pod) {
                self.delete(round, pod, writes).await?;
            }
            if round.is_ordered() {
                return Ok(());
            }
        }
        if settled && round.is_rolling() {
            return self.replace(round, again, writes).await;
        }
        Ok(())
    }

    /// Brings one ordinal nearer to a pod that is there, available and known by its name; tells whether it is.
    async fn settle(
        &self,
        round: &Round<'_>,
        at: usize,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<bool, Error> {
        let ordinal = round.ordinal(at);
        let Some(pod) = round.replicas.get(&at) else {
            // The cache tells of the claims' end, and then it is made.
            if !self.claims_are_stale(round, &format!("{}-{ordinal}", round.name())) {
                self.create(round, ordinal, writes).await?;
            }
            return Ok(false);
        };
        if pods::is_finished(pod) {
            if !is_leaving(pod) {
                self.tell_recreation(round, pod);
                self.delete(round, pod, writes).await?;
            }
            return Ok(false);
        }
        if pods::phase(pod) == "Pending" && !is_leaving(pod) {
            self.make_claims(round, pod, writes).await?;
        }
        if round.is_ordered() && (is_leaving(pod) || !round.is_available(pod, again)) {
            return Ok(false);
        }
        self.own_claims(round, pod, false, writes).await?;
        let missing: Map<_, _> =
            Round::missing_labels(pod).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        if !missing.is_empty() && !is_leaving(pod) {
            let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid, "labels": missing}}));
            match self.pods_api(round.set).patch(pod_name(pod), &PatchParams::default(), &patch).await {
                Ok(written) => writes.wrote(&self.pods, &written),
                Err(error) => {
                    self.tell(round, "update", pod, Some(&error));
                    return Err(error.into());
                }
            }
            self.tell(round, "update", pod, None);
        }
        Ok(true)
    }

    fn tell_recreation(&self, round: &Round<'_>, pod: &Arc<Pod>) {
        let (kind, reason, what) = match pods::phase(pod) {
            "Failed" => (EventType::Warning, "RecreatingFailedPod", "failed"),
            _ => (EventType::Normal, "RecreatingTerminatedPod", "terminated"),
        };
        let namespace = round.set.metadata.namespace.as_deref().unwrap_or_default();
        let said = format!("StatefulSet {namespace}/{} is recreating {what} Pod {}", round.name(), pod_name(pod));
        self.recorder.event(&reference(round.set), kind, reason, said);
    }

    /// Deletes pods of another revision, from the highest ordinal down to the partition, as many at once as may be
    /// unavailable; all pods count for that.
    async fn replace(&self, round: &Round<'_>, again: &mut Option<Duration>, writes: &mut Writes) -> Result<(), Error> {
        let (mut unavailable, mut useless, mut healthy) = (0, Vec::new(), Vec::new());
        for (at, pod) in round.replicas.iter().rev() {
            let serves = !is_leaving(pod) && round.is_available(pod, again);
            unavailable += usize::from(!serves);
            let keeps = *at < round.partition() || revision_of(pod) == revisions::name(&round.update);
            if !keeps && !is_leaving(pod) {
                if serves { healthy.push(pod) } else { useless.push(pod) }
            }
        }
        // Those that serve nobody are counted already: that they go costs nothing.
        let left = round.max_unavailable().saturating_sub(unavailable);
        for pod in useless.into_iter().chain(healthy.into_iter().take(left)) {
            self.delete(round, pod, writes).await?;
        }
        Ok(())
    }
}

impl Round<'_> {
    /// At least one.
    fn max_unavailable(&self) -> usize {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let asked = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let of = i32::try_from(self.wanted).unwrap_or(i32::MAX);
        usize::try_from(pods::scaled(asked, of, false)).unwrap_or_default().max(1)
    }
}
