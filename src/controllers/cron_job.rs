//! CronJob: makes Jobs at their times.
//!
//! Nothing polls: a reconcile ends with the time to the next one. A Job's name tells its time, so that no time is
//! served twice, whatever is forgotten.

mod due;
mod history;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::tz::TimeZone;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use mini_api::cron::{self, Schedule};
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};

use crate::driver::{Error, Key, Outcome, Source, Writes, code, message, optional};
use crate::owner::{self, controller_reference, controls};
use crate::write;

/// When the Job was due, in the CronJob's zone.
const DUE: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks differ: a Job is made a little after its time rather than before.
const LATE: Duration = Duration::from_millis(100);

pub(crate) struct Controller {
    client: Client,
    crons: Cache<CronJob>,
    jobs: Cache<Job>,
    recorder: Recorder,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        Self { client: client.clone(), crons: caches.of(), jobs: caches.of(), recorder }
    }

    fn jobs_api(&self, cron: &CronJob) -> Api<Job> {
        Api::namespaced(self.client.clone(), cron.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn tell(&self, cron: &CronJob, kind: EventType, reason: &str, said: impl Into<String>) {
        self.recorder.event(&reference(cron), kind, reason, said.into());
    }
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&self.crons), owner::controlled::<CronJob, _>(&self.jobs)]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(cron) = self.crons.get(&key.namespace, &key.name) else { return Ok(None) };
        let spec = &cron.spec;
        let mut jobs = self.jobs.list_in(&key.namespace);
        jobs.retain(|job| controls(cron.as_ref(), &job.metadata));
        let mut status = cron.status.clone().unwrap_or_default();
        self.watch_active(&cron, &jobs, &mut status).await?;
        self.forget_old(&cron, spec, jobs, &mut status, writes).await;
        let again = self.start_due(&cron, spec, &mut status, Timestamp::now(), writes).await;
        status.active.take_if(|active| active.is_empty());
        write::status(&self.client, &self.crons, cron.as_ref(), (&cron.status, &status), writes).await?;
        again
    }
}

impl Controller {
    /// Starts the Job that is due, and tells when the next one is.
    async fn start_due(
        &self,
        cron: &CronJob,
        spec: &CronJobSpec,
        status: &mut CronJobStatus,
        now: Timestamp,
        writes: &mut Writes,
    ) -> Outcome {
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let zone = match spec.time_zone.as_deref().map(|name| (name, cron::zone(name))) {
            None => TimeZone::system(),
            Some((_, Some(zone))) => zone,
            Some((name, None)) => {
                let said = format!("invalid timeZone: {name:?}: unknown time zone {name}");
                self.tell(cron, EventType::Warning, "UnknownTimeZone", said);
                return Ok(None);
            }
        };
        if spec.suspend == Some(true) {
            return Ok(None);
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let said = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                self.tell(cron, EventType::Warning, "UnparseableSchedule", said);
                return Ok(None);
            }
        };
        let since = due::since(cron, &schedule, status, now);
        let found = due::latest(&schedule, &zone, since, now);
        let next = Ok(due::next(&schedule, &zone, (since, &found), now).map(|next| next + LATE));
        if found.too_many {
            let said = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.tell(cron, EventType::Warning, "TooManyMissedTimes", said);
        }
        let Some(due) = found.latest else { return next };
        if due::is_too_late(spec, due, now) {
            let said = format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
            self.tell(cron, EventType::Warning, "MissSchedule", said);
            return next;
        }
        let job = job_at(cron, spec, due, &zone);
        let active = status.active.get_or_insert_default();
        let known = active.iter().any(|entry| entry.name == job.metadata.name);
        if known || status.last_schedule_time.as_ref().is_some_and(|last| last.0 == due) {
            return next;
        }
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let said = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.tell(cron, EventType::Normal, "JobAlreadyActive", said);
                return next;
            }
            Some("Replace") => {
                for entry in std::mem::take(active) {
                    let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
                    let running = entry.name.as_deref().and_then(|name| self.jobs.get(namespace, name));
                    if let Some(running) = running.filter(|job| job.metadata.uid == entry.uid) {
                        self.delete(cron, &running, writes).await?;
                    }
                }
            }
            _ => {}
        }
        let Some(made) = self.create(cron, &job, writes).await? else { return next };
        status.active.get_or_insert_default().push(reference(&made));
        status.last_schedule_time = Some(Time(due));
        next
    }

    /// The Job as the server has it; `None` where somebody else's bears its name, or the namespace is going.
    async fn create(&self, cron: &CronJob, job: &Job, writes: &mut Writes) -> Result<Option<Job>, Error> {
        let api = self.jobs_api(cron);
        match api.create(&PostParams::default(), job).await {
            Ok(made) => {
                self.tell(cron, EventType::Normal, "SuccessfulCreate", format!("Created job {}", name(&made)));
                writes.wrote(&self.jobs, &made);
                Ok(Some(made))
            }
            // Made by a reconcile whose end was not written down.
            Err(error) if code(&error) == 409 => {
                let present = optional(api.get(name(job)).await)?;
                Ok(present.filter(|present| controls(cron, &present.metadata)))
            }
            Err(error) if crate::pod_control::namespace_is_leaving(&error) => Ok(None),
            Err(error) => {
                let said = format!("Error creating job: {}", message(&error));
                self.tell(cron, EventType::Warning, "FailedCreate", said);
                Err(error.into())
            }
        }
    }

    async fn delete(&self, cron: &CronJob, job: &Arc<Job>, writes: &mut Writes) -> Result<(), Error> {
        let preconditions = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.jobs_api(cron).delete(name(job), &params).await {
            Ok(_) => {
                self.tell(cron, EventType::Normal, "SuccessfulDelete", format!("Deleted job {}", name(job)));
                writes.deleted(&self.jobs, job.as_ref());
                Ok(())
            }
            Err(error) if code(&error) == 404 => Ok(()),
            Err(error) => {
                let said = format!("Deleted job: {}", message(&error));
                self.tell(cron, EventType::Warning, "FailedDelete", said);
                Err(error.into())
            }
        }
    }
}

/// The Job for one time, named by its minute.
fn job_at(cron: &CronJob, spec: &CronJobSpec, due: Timestamp, zone: &TimeZone) -> Job {
    let template = &spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.insert(DUE.to_owned(), due.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    if zone.to_offset(due).is_zero()
        && let Some(text) = annotations.get_mut(DUE)
    {
        *text = due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    let minutes = due.as_second().div_euclid(60);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{minutes}", cron.metadata.name.as_deref().unwrap_or_default())),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests;
