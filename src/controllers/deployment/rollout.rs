//! The two strategies: RollingUpdate and Recreate.

use super::conditions::is_complete;
use super::revision::age_key;
use super::{Controller, Rollout, numbers};
use crate::driver::{Error, Writes};

impl Controller {
    /// One step: grow the new ReplicaSet as far as surge allows, else shrink old ones as far as availability allows.
    pub(super) async fn roll(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        self.ensure_new(rollout, writes).await?;
        if self.grow_new(rollout, writes).await? || self.shrink_old(rollout, writes).await? {
            return Ok(());
        }
        self.clean_up_if_complete(rollout, writes).await
    }

    /// First nothing of the old, then all of the new.
    pub(super) async fn recreate(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        let mut shrunk = false;
        for set in rollout.old.clone() {
            shrunk |= self.resize(rollout, &set, 0, writes).await?;
        }
        if shrunk || self.old_pods_run(rollout) {
            return Ok(());
        }
        self.ensure_new(rollout, writes).await?;
        if let Some(new) = rollout.new.clone() {
            self.resize(rollout, &new, numbers::replicas(rollout.deployment), writes).await?;
        }
        self.clean_up_if_complete(rollout, writes).await
    }

    async fn ensure_new(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        if rollout.new.is_none() {
            self.number_revision(rollout, true, writes).await?;
        }
        Ok(())
    }

    async fn clean_up_if_complete(&self, rollout: &Rollout<'_>, writes: &mut Writes) -> Result<(), Error> {
        match &rollout.deployment.status {
            Some(status) if is_complete(rollout.deployment, status) => self.clean_up(rollout, writes).await,
            _ => Ok(()),
        }
    }

    async fn grow_new(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<bool, Error> {
        let Some(new) = rollout.new.clone() else { return Ok(false) };
        let (wished, size) = (numbers::replicas(rollout.deployment), numbers::size(&new));
        let next = if size > wished {
            wished
        } else {
            numbers::new_size(rollout.deployment, numbers::sum(rollout.all(), numbers::size), size)
        };
        self.resize(rollout, &new, next, writes).await
    }

    async fn shrink_old(&self, rollout: &mut Rollout<'_>, writes: &mut Writes) -> Result<bool, Error> {
        let Some(new) = rollout.new.clone() else { return Ok(false) };
        if numbers::sum(&rollout.old, numbers::size) == 0 {
            return Ok(false);
        }
        let least = numbers::replicas(rollout.deployment) - numbers::max_unavailable(rollout.deployment);
        let new_unavailable = numbers::size(&new) - numbers::available(&new);
        // New pods that are not available yet must not cost old ones that are.
        let budget = numbers::sum(rollout.all(), numbers::size) - least - new_unavailable;
        if budget <= 0 {
            return Ok(false);
        }
        rollout.old.sort_by_key(|set| age_key(set));
        let unhealthy = self.drop_unhealthy(rollout, budget, writes).await?;
        let healthy = self.drop_healthy(rollout, least, writes).await?;
        Ok(unhealthy + healthy > 0)
    }

    /// Old pods that are not available go first: that costs nothing, and they could block the rollout for ever.
    async fn drop_unhealthy(&self, rollout: &mut Rollout<'_>, budget: i32, writes: &mut Writes) -> Result<i32, Error> {
        let mut dropped = 0;
        for set in rollout.old.clone() {
            let size = numbers::size(&set);
            let count = (size - numbers::available(&set)).min(budget - dropped);
            if count > 0 {
                self.resize(rollout, &set, size - count, writes).await?;
                dropped += count;
            }
        }
        Ok(dropped)
    }

    async fn drop_healthy(&self, rollout: &mut Rollout<'_>, least: i32, writes: &mut Writes) -> Result<i32, Error> {
        let budget = numbers::sum(rollout.all(), numbers::available) - least;
        let mut dropped = 0;
        for set in rollout.old.clone() {
            let size = numbers::size(&set);
            let count = size.min(budget - dropped);
            if count > 0 {
                self.resize(rollout, &set, size - count, writes).await?;
                dropped += count;
            }
        }
        Ok(dropped)
    }
}
