//! The counts of a DaemonSet's status, one for each node.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSetStatus;

use super::nodes::fits;
use super::{Controller, Round};
use crate::driver::{Error, Writes};
use crate::{pods, write};

impl Controller {
    pub(super) async fn write_status(
        &self,
        round: &Round<'_>,
        collisions: Option<i32>,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let status = round.count(collisions, again);
        write::status(&self.client, &self.sets, round.set, (&round.set.status, &status), writes).await.map(drop)
    }
}

impl Round<'_> {
    fn count(&self, collision_count: Option<i32>, again: &mut Option<Duration>) -> DaemonSetStatus {
        let conditions = self.set.status.as_ref().and_then(|status| status.conditions.clone());
        let mut status = DaemonSetStatus {
            collision_count,
            conditions,
            observed_generation: self.set.metadata.generation,
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for node in &self.nodes {
            let pods = self.pods.get(node.metadata.name.as_deref().unwrap_or_default());
            let first = pods.and_then(|pods| pods.first());
            if !fits(self.set, node).0 {
                status.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = first else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(self.is_available(pod, again));
            updated += i32::from(self.is_updated(pod));
        }
        let some = |count: i32| (count != 0).then_some(count);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }
}
