//! The counts of a StatefulSet's status and the revision it has reached.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSetStatus;

use super::{Controller, Round, is_leaving, revision_of, runs};
use crate::driver::{Error, Writes};
use crate::{revisions, write};

impl Controller {
    pub(super) async fn write_status(
        &self,
        round: &Round<'_>,
        again: &mut Option<Duration>,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let status = round.count(again);
        write::status(&self.client, &self.sets, round.set, (&round.set.status, &status), writes).await.map(drop)
    }
}

impl Round<'_> {
    fn count(&self, again: &mut Option<Duration>) -> StatefulSetStatus {
        let (current, update) = (revisions::name(&self.current), revisions::name(&self.update));
        let (mut all, mut ready, mut available, mut of_current, mut of_update) = (0, 0, 0, 0, 0);
        for pod in self.all() {
            all += 1;
            ready += i32::from(runs(pod));
            available += i32::from(self.is_available(pod, again));
            if !is_leaving(pod) {
                of_current += i32::from(revision_of(pod) == current);
                of_update += i32::from(revision_of(pod) == update);
            }
        }
        let wanted = self.spec.replicas.unwrap_or(1);
        let arrived = self.is_rolling() && [of_update, ready, all].iter().all(|count| *count == wanted);
        let (current, of_current) = if arrived { (update, of_update) } else { (current, of_current) };
        let some = |count: i32| (count != 0).then_some(count);
        StatefulSetStatus {
            replicas: all,
            ready_replicas: some(ready),
            available_replicas: Some(available),
            current_replicas: some(of_current),
            updated_replicas: some(of_update),
            current_revision: Some(current.to_owned()),
            update_revision: Some(update.to_owned()),
            observed_generation: self.set.metadata.generation,
            collision_count: Some(self.collisions.unwrap_or_default()),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        }
    }
}
