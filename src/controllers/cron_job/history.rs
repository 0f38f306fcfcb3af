//! What became of a CronJob's Jobs: which run, which ended, and which are old enough to go.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use mini_client::EventType;

use super::{Controller, name};
use crate::driver::{Error, Writes, optional};
use crate::job::is_finished;

fn ended_as(job: &Job) -> Option<&str> {
    is_finished(job).map(|condition| condition.type_.as_str())
}

impl Controller {
    /// Keeps the list of running Jobs and the time of the last success.
    pub(super) async fn watch_active(
        &self,
        cron: &CronJob,
        jobs: &[Arc<Job>],
        status: &mut CronJobStatus,
    ) -> Result<(), Error> {
        let mut active = status.active.take().unwrap_or_default();
        for job in jobs {
            let listed = active.iter().position(|entry| entry.uid == job.metadata.uid);
            match (listed, ended_as(job)) {
                (None, None) => {
                    let said = format!("Saw a job that the controller did not create or forgot: {}", name(job));
                    self.tell(cron, EventType::Warning, "UnexpectedJob", said);
                }
                (Some(at), Some(end)) => {
                    active.remove(at);
                    let said = format!("Saw completed job: {}, condition: {end}", name(job));
                    self.tell(cron, EventType::Normal, "SawCompletedJob", said);
                }
                _ => {}
            }
            let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
            if ended_as(job) == Some("Complete")
                && let Some(completed) = completed
                && status.last_successful_time.as_ref().is_none_or(|last| last.0 < completed.0)
            {
                status.last_successful_time = Some(completed);
            }
        }
        let mut present = Vec::with_capacity(active.len());
        for entry in active {
            let mut known = jobs.iter().any(|job| job.metadata.uid == entry.uid);
            if !known {
                // Made just now, perhaps: the server knows.
                let found = optional(self.jobs_api(cron).get(entry.name.as_deref().unwrap_or_default()).await)?;
                known = found.is_some_and(|job| job.metadata.uid == entry.uid);
            }
            if known {
                present.push(entry);
            } else {
                let said = format!("Active job went missing: {}", entry.name.as_deref().unwrap_or_default());
                self.tell(cron, EventType::Normal, "MissingJob", said);
            }
        }
        status.active = Some(present);
        Ok(())
    }

    /// Deletes finished Jobs beyond the limits, oldest first. What cannot be deleted now is told, and has time.
    pub(super) async fn forget_old(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        jobs: Vec<Arc<Job>>,
        status: &mut CronJobStatus,
        writes: &mut Writes,
    ) {
        let (mut good, mut bad): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .filter(|job| ended_as(job).is_some() && job.metadata.deletion_timestamp.is_none())
            .partition(|job| ended_as(job) == Some("Complete"));
        for (jobs, limit) in
            [(&mut good, spec.successful_jobs_history_limit), (&mut bad, spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit else { continue };
            jobs.sort_by_key(|job| {
                let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
                (start, job.metadata.name.clone())
            });
            let excess = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
            for job in jobs.iter().take(excess) {
                if self.delete(cron, job, writes).await.is_ok() {
                    status.active.iter_mut().for_each(|active| active.retain(|entry| entry.uid != job.metadata.uid));
                }
            }
        }
    }
}
