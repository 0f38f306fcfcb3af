//! HorizontalPodAutoscaler: as many replicas as the use of resources asks for.
//!
//! The one controller that looks again by the clock, while there is an autoscaler: metrics have no watch. Resource
//! metrics come from `metrics.k8s.io`; of other kinds of metrics it says that they cannot be had.

mod behavior;
pub(crate) mod scale;
mod usage;

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
    MetricTarget,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use mini_api::{LabelSelector, Quantity};
use mini_client::{Cache, Caches, Change, Client, EventType, Recorder, reference};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::driver::{Key, Outcome, Source, Writes, message};
use crate::write;
use behavior::Past;
use scale::Scale;
use usage::{Question, Samples, Target, Tolerance};

/// Upstream's `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);

pub(crate) struct Controller {
    client: Client,
    scalers: Cache<HorizontalPodAutoscaler>,
    pods: Cache<Pod>,
    recorder: Recorder,
    /// By uid.
    past: Mutex<HashMap<String, Past>>,
}

/// What all metrics together ask for.
struct Wish {
    replicas: i32,
    /// The metric that asks for it, in upstream's words.
    metric: String,
    statuses: Vec<MetricStatus>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, recorder: Recorder) -> Self {
        Self { client: client.clone(), scalers: caches.of(), pods: caches.of(), recorder, past: Mutex::default() }
    }

    /// The largest number that any metric asks for. A metric that cannot be had may not let the number fall.
    async fn wish(&self, hpa: &HorizontalPodAutoscaler, scale: &Scale) -> Result<Wish, (String, String)> {
        let mut wish: Option<Wish> = None;
        let (mut statuses, mut failure) = (Vec::new(), None);
        for metric in hpa.spec.metrics.iter().flatten() {
            match self.one(hpa, scale, metric).await {
                Ok((replicas, name, status)) => {
                    statuses.push(status);
                    if wish.as_ref().is_none_or(|wish| wish.replicas < replicas) {
                        wish = Some(Wish { replicas, metric: name, statuses: Vec::new() });
                    }
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (wish, failure) {
            (Some(wish), Some(error)) if wish.replicas < scale.replicas => Err(error),
            (Some(wish), _) => Ok(Wish { statuses, ..wish }),
            (None, Some(error)) => Err(error),
            (None, None) => Err(("InvalidMetricSourceType".to_owned(), "the autoscaler has no metrics".to_owned())),
        }
    }

    async fn one(
        &self,
        hpa: &HorizontalPodAutoscaler,
        scale: &Scale,
        metric: &MetricSpec,
    ) -> Result<(i32, String, MetricStatus), (String, String)> {
        let (name, container, target) = match (&metric.resource, &metric.container_resource) {
            (Some(resource), _) => (&resource.name, None, &resource.target),
            (_, Some(resource)) => (&resource.name, Some(resource.container.as_str()), &resource.target),
            _ => {
                let kind = &metric.type_;
                let why = format!("unable to fetch {kind} metrics: no custom metrics API is served");
                return Err((format!("FailedGet{kind}Metric"), why));
            }
        };
        let failed = |why: String| {
            let reason =
                if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
            let form = if is_utilization(target) { "utilization" } else { "resource metric value" };
            (reason.to_owned(), format!("failed to get {name} {form}: {why}"))
        };
        let namespace = hpa.metadata.namespace.as_deref().unwrap_or_default();
        let samples = self.samples(namespace, &scale.selector, name, container).await.map_err(failed)?;
        let selector = LabelSelector::parse(&scale.selector).map_err(failed)?;
        let mut pods = self.pods.list_in(namespace);
        pods.retain(|pod| {
            let labels = pod.metadata.labels.as_ref();
            selector.matches_with(|name| labels?.get(name).map(String::as_str))
        });
        let asked = match target.average_utilization {
            Some(percent) => Target::Utilization(percent),
            None => Target::Average(target.average_value.as_ref().map_or(0, |value| milli(&value.0))),
        };
        let question = Question {
            resource: name,
            container,
            target: asked,
            current: scale.replicas,
            tolerance: Tolerance::of(hpa),
        };
        let answer = question.ask(&pods, &samples, Timestamp::now()).map_err(failed)?;
        let current = json!({"averageValue": format!("{}m", answer.average), "averageUtilization":
            answer.utilization.filter(|_| is_utilization(target))});
        let (field, mut source) = match container {
            None => ("resource", json!({"name": name, "current": current})),
            Some(_) => ("containerResource", json!({"name": name, "current": current})),
        };
        if let Some(container) = container {
            source["container"] = json!(container);
        }
        let status = json!({"type": metric.type_, field: source});
        let status = serde_json::from_value(status).map_err(|error| failed(error.to_string()))?;
        let told = match container {
            None if is_utilization(target) => format!("{name} resource utilization (percentage of request)"),
            None => format!("{name} resource"),
            Some(_) if is_utilization(target) => {
                format!("{name} container resource utilization (percentage of request)")
            }
            Some(_) => format!("{name} container resource"),
        };
        Ok((answer.replicas, told, status))
    }

    /// What each selected pod uses now.
    async fn samples(
        &self,
        namespace: &str,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={}",
            scale::escape(selector)
        );
        let list = scale::get(&self.client, &path).await.map_err(|error| {
            format!(
                "unable to get metrics for resource {resource}: unable to fetch metrics from resource metrics API: {}",
                message(&error)
            )
        })?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let samples: Samples = items
            .iter()
            .filter_map(|item| {
                let containers = item["containers"].as_array()?;
                let wanted = containers.iter().filter(|held| container.is_none_or(|name| held["name"] == name));
                let used: Option<Vec<i64>> = wanted.map(|held| held["usage"][resource].as_str().map(milli)).collect();
                let used = used.filter(|used| !used.is_empty())?;
                Some((item["metadata"]["name"].as_str()?.to_owned(), used.iter().sum()))
            })
            .collect();
        if samples.is_empty() {
            return Err(format!(
                "unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            ));
        }
        Ok(samples)
    }
}

fn is_utilization(target: &MetricTarget) -> bool {
    target.average_utilization.is_some()
}

fn milli(quantity: &str) -> i64 {
    Quantity::parse(quantity).map_or(0, |quantity| quantity.milli())
}

/// Sets a condition; its time moves with its status.
fn tell(status: &mut HorizontalPodAutoscalerStatus, kind: &str, value: bool, reason: &str, message: impl Into<String>) {
    let value = if value { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let at = conditions.iter().position(|condition| condition.type_ == kind);
    let before = at.and_then(|at| conditions.get(at)).filter(|before| before.status == value);
    let since = before.and_then(|before| before.last_transition_time.clone()).unwrap_or(Time(Timestamp::now()));
    let condition = HorizontalPodAutoscalerCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_transition_time: Some(since),
        ..HorizontalPodAutoscalerCondition::default()
    };
    match at.and_then(|at| conditions.get_mut(at)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

impl Controller {
    /// Brings the target to its size and tells of it in the status.
    async fn scale(&self, hpa: &HorizontalPodAutoscaler, status: &mut HorizontalPodAutoscalerStatus) {
        let subject = reference(hpa);
        let warn = |reason: &str, said: String| self.recorder.event(&subject, EventType::Warning, reason, said);
        let mut scale = match scale::read(&self.client, hpa).await {
            Ok(scale) => scale,
            Err(why) => {
                let said = format!("the HPA controller was unable to get the target's current scale: {why}");
                tell(status, ABLE, false, "FailedGetScale", said);
                return warn("FailedGetScale", why);
            }
        };
        tell(status, ABLE, true, "SucceededGetScale", "the HPA controller was able to get the target's current scale");
        let (current, least, most) = (scale.replicas, hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas);
        status.current_replicas = Some(current);
        let (wished, reason) = if current == 0 && least != 0 {
            let said = "scaling is disabled since the replica count of the target is zero";
            tell(status, ACTIVE, false, "ScalingDisabled", said);
            (0, String::new())
        } else if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < least {
            (least, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.wish(hpa, &scale).await {
                Ok(wish) => {
                    status.current_metrics = Some(wish.statuses);
                    let said =
                        format!("the HPA was able to successfully calculate a replica count from {}", wish.metric);
                    tell(status, ACTIVE, true, "ValidMetricFound", said);
                    let replicas = self.bound(hpa, current, wish.replicas, status);
                    let above = format!("{} above target", wish.metric);
                    (replicas, if replicas > current { above } else { "All metrics below target".to_owned() })
                }
                Err((reason, why)) => {
                    status.desired_replicas = current;
                    let said = format!("the HPA was unable to compute the replica count: {why}");
                    tell(status, ACTIVE, false, &reason, said);
                    warn(&reason, why.clone());
                    return warn("FailedComputeMetricsReplicas", format!("invalid metrics: {why}"));
                }
            }
        };
        status.desired_replicas = wished;
        if wished == current {
            return;
        }
        match scale.write(&self.client, wished).await {
            Ok(()) => {
                let said = format!("the HPA controller was able to update the target scale to {wished}");
                tell(status, ABLE, true, "SucceededRescale", said);
                status.last_scale_time = Some(Time(Timestamp::now()));
                let uid = hpa.metadata.uid.clone().unwrap_or_default();
                self.past.lock().entry(uid).or_default().changed(wished - current, Instant::now());
                let said = format!("New size: {wished}; reason: {reason}");
                self.recorder.event(&subject, EventType::Normal, "SuccessfulRescale", said);
            }
            Err(why) => {
                status.desired_replicas = current;
                let said = format!("the HPA controller was unable to update the target scale: {why}");
                tell(status, ABLE, false, "FailedUpdateScale", said);
                warn("FailedRescale", format!("New size: {wished}; reason: {reason}; error: {why}"));
            }
        }
    }

    fn bound(
        &self,
        hpa: &HorizontalPodAutoscaler,
        current: i32,
        wished: i32,
        status: &mut HorizontalPodAutoscalerStatus,
    ) -> i32 {
        let uid = hpa.metadata.uid.clone().unwrap_or_default();
        let bounded = self.past.lock().entry(uid).or_default().bound(hpa, current, wished, Instant::now());
        let (reason, said) =
            bounded.stabilized.unwrap_or(("ReadyForNewScale", "recommended size matches current size"));
        tell(status, ABLE, true, reason, said);
        match bounded.limited {
            Some((reason, said)) => tell(status, LIMITED, true, reason, said),
            None => {
                let said = "the desired count is within the acceptable range";
                tell(status, LIMITED, false, "DesiredWithinRange", said);
            }
        }
        bounded.replicas
    }
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "horizontalpodautoscaler"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::of(&self.scalers, |change| match change {
            // Its own statuses are no news.
            Change::Updated { old, new } if old.spec == new.spec => Vec::new(),
            _ => vec![Key::of(change.object().as_ref())],
        })]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(hpa) = self.scalers.get(&key.namespace, &key.name) else {
            let uids: Vec<_> = self.scalers.list().iter().filter_map(|hpa| hpa.metadata.uid.clone()).collect();
            self.past.lock().retain(|uid, _| uids.contains(uid));
            return Ok(None);
        };
        if hpa.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut status = hpa.status.clone().unwrap_or_default();
        status.observed_generation = hpa.metadata.generation;
        self.scale(&hpa, &mut status).await;
        write::status(&self.client, &self.scalers, hpa.as_ref(), (&hpa.status, &status), writes).await?;
        Ok(Some(PERIOD))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fake::{Running, condition, run};

    #[tokio::test]
    async fn a_target_outside_of_its_bounds_is_brought_within_and_missing_metrics_are_told() {
        let hpa = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "h", "namespace": "a", "uid": "h", "generation": 1},
            "spec": {"minReplicas": 2, "maxReplicas": 4,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
        // The fake server answers the object itself for any subresource; that of a scale is alike enough.
        let target = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "a"},
            "spec": {"replicas": 9}, "status": {"selector": "app=web"}});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a",
            "labels": {"app": "web"}}, "spec": {"containers": []}});
        run(&mut pod, 1);
        let running = Running::new(&[hpa, target, pod]);
        running.start(Controller::new(&running.client, &running.caches, running.recorder()));
        let size = |sets: &[Value]| sets[0]["spec"]["replicas"] == 4;
        running.api.until("replicasets", size).await;
        let told = |reason: &'static str| move |events: &[Value]| events.iter().any(|event| event["reason"] == reason);
        running.api.until("events", told("SuccessfulRescale")).await;
        running
            .api
            .until("horizontalpodautoscalers", |all| condition(&all[0], "AbleToScale")["reason"] == "SucceededRescale")
            .await;
        running.api.edit("horizontalpodautoscalers", "a", "h", |hpa| hpa["spec"]["maxReplicas"] = json!(5));
        running.api.until("events", told("FailedComputeMetricsReplicas")).await;
        let failed = |all: &[Value]| condition(&all[0], "ScalingActive")["reason"] == "FailedGetResourceMetric";
        running.api.until("horizontalpodautoscalers", failed).await;
    }
}
