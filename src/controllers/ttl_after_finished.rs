//! Deletes Jobs some time after they finished, where they ask for it.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use mini_client::{Cache, Caches, Client};

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::job::is_finished;

pub(crate) struct Controller {
    client: Client,
    jobs: Cache<Job>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), jobs: caches.of() }
    }
}

/// When a Job is to go.
fn due(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let finished = is_finished(job)?.last_transition_time.as_ref()?.0;
    finished.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok()
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::of(&self.jobs, |change| {
            let job = change.object();
            due(job).map(|_| Key::of(job.as_ref())).into_iter().collect()
        })]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(None) };
        let Some(due) = due(&job).filter(|_| job.metadata.deletion_timestamp.is_none()) else { return Ok(None) };
        if let Ok(left) = Duration::try_from(due.duration_since(Timestamp::now()))
            && !left.is_zero()
        {
            return Ok(Some(left));
        }
        // The revision guards against a longer time asked for meanwhile.
        let preconditions =
            Preconditions { uid: job.metadata.uid.clone(), resource_version: job.metadata.resource_version.clone() };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        if optional(api.delete(&key.name, &params).await)?.is_some() {
            writes.deleted(&self.jobs, job.as_ref());
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::{Running, named};

    fn job(name: &str, ttl: Value, finished: Option<Timestamp>) -> Value {
        let conditions =
            finished.map(|at| json!([{"type": "Complete", "status": "True", "lastTransitionTime": at.to_string()}]));
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "a"},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {"spec": {"containers": []}}},
            "status": {"conditions": conditions}})
    }

    #[tokio::test]
    async fn finished_jobs_go_when_their_time_is_over() {
        let (now, before) = (Timestamp::now(), Timestamp::now() - SignedDuration::from_secs(100));
        let running = Running::new(&[
            job("over", json!(100), Some(before)),
            job("at-once", json!(0), Some(now)),
            job("later", json!(1000), Some(before)),
            job("kept", Value::Null, Some(before)),
            job("runs", json!(0), None),
        ]);
        running.start(Controller::new(&running.client, &running.caches));
        let going = |jobs: &[Value], name: &str| !named(jobs, name)["metadata"]["deletionTimestamp"].is_null();
        running.api.until("jobs", |jobs| going(jobs, "over") && going(jobs, "at-once")).await;
        let jobs = running.api.list("jobs");
        assert!(["later", "kept", "runs"].iter().all(|name| !going(&jobs, name) && !named(&jobs, name).is_null()));
        assert_eq!(named(&jobs, "over")["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    }
}
