//! Jobs against the fake API server; the tests end the pods.

use k8s_openapi::jiff::SignedDuration;
use mini_client::testing::FakeApi;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, condition, named, run};

fn job(extra: &Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "j", "namespace": "a", "uid": "job", "generation": 1},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"controller-uid": "job"}},
            "template": {"metadata": {"labels": {"controller-uid": "job", "batch.kubernetes.io/job-name": "j"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
    for (name, value) in extra.as_object().into_iter().flatten() {
        job["spec"][name] = value.clone();
    }
    job
}

fn start(extra: &Value) -> Running {
    let running = Running::new(&[job(extra)]);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running
}

fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default())
}

/// Ends a pod with an exit code, long ago, so that no back-off holds the next one.
fn end(api: &FakeApi, name: &str, code: i32) {
    let long_ago = (Timestamp::now() - SignedDuration::from_hours(1)).to_string();
    api.edit("pods", "a", name, |pod| {
        pod["spec"]["nodeName"] = json!("n");
        pod["status"] = json!({"phase": if code == 0 { "Succeeded" } else { "Failed" },
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "finishedAt": long_ago}}}]});
    });
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn place(pod: &Value) -> String {
    pod["metadata"]["annotations"][INDEX].as_str().unwrap_or_default().to_owned()
}

/// Ends each pod as `code` says of its index.
fn work(running: &Running, code: impl Fn(&str) -> Option<i32> + Send + 'static) {
    let (api, pods) = (running.api.clone(), running.caches.of::<Pod>());
    tokio::spawn(async move {
        let mut changes = pods.subscribe();
        while let Some(change) = changes.next().await {
            let Some(pod) = api.get("pods", "a", change.object().metadata.name.as_deref().unwrap_or_default()) else {
                continue;
            };
            if let (false, Some(code)) = (is_over(&pod), code(&place(&pod))) {
                end(&api, &name(&pod), code);
            }
        }
    });
}

async fn over(running: &Running, kind: &str) -> Value {
    running.api.until("jobs", |jobs| condition(named(jobs, "j"), kind)["status"] == "True").await;
    running.api.get("jobs", "a", "j").unwrap_or_default()
}

#[tokio::test]
async fn a_job_runs_its_pods_counts_each_once_and_completes() {
    let running = start(&json!({"completions": 4, "parallelism": 2}));
    running.api.until("pods", |pods| pods.len() == 2).await;
    running.api.until("jobs", |jobs| jobs[0]["status"]["active"] == 2 && jobs[0]["status"]["ready"] == 0).await;
    let pod = running.api.list("pods").remove(0);
    assert_eq!(pod["metadata"]["finalizers"], json!([TRACKING]));
    running.api.edit("pods", "a", &name(&pod), |pod| run(pod, 1));
    running.api.until("jobs", |jobs| jobs[0]["status"]["ready"] == 1).await;
    work(&running, |_| Some(0));
    let job = over(&running, "Complete").await;
    let status = &job["status"];
    assert_eq!((&status["succeeded"], &status["failed"], &status["active"]), (&json!(4), &Value::Null, &Value::Null));
    assert_eq!(condition(&job, "SuccessCriteriaMet")["reason"], "CompletionsReached");
    assert_eq!(condition(&job, "Complete")["message"], "Reached expected number of succeeded pods");
    assert_eq!(status["uncountedTerminatedPods"], json!({}));
    assert!(!status["completionTime"].is_null() && !status["startTime"].is_null());
    let pods = running.api.list("pods");
    assert_eq!(pods.len(), 4);
    assert!(pods.iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    running.api.until("events", |events| events.iter().any(|event| event["message"] == "Job completed")).await;
}

#[tokio::test]
async fn too_many_failures_end_a_job() {
    let running = start(&json!({"backoffLimit": 1}));
    work(&running, |_| Some(1));
    let job = over(&running, "Failed").await;
    assert_eq!(job["status"]["failed"], 2);
    for kind in ["FailureTarget", "Failed"] {
        assert_eq!(condition(&job, kind)["reason"], "BackoffLimitExceeded");
        assert_eq!(condition(&job, kind)["message"], "Job has reached the specified backoff limit");
    }
    running.api.until("events", |events| events.iter().any(|event| event["reason"] == "BackoffLimitExceeded")).await;
}

#[tokio::test]
async fn the_next_pod_waits_after_a_failure() {
    let running = start(&json!({}));
    running.api.until("pods", |pods| pods.len() == 1).await;
    let first = name(&running.api.list("pods")[0]);
    running.api.edit("pods", "a", &first, |pod| {
        pod["status"] = json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False",
            "lastTransitionTime": Timestamp::now().to_string()}]});
    });
    running.api.until("jobs", |jobs| jobs[0]["status"]["failed"] == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(running.api.list("pods").len(), 1);
    end(&running.api, &first, 1);
    running.api.until("pods", |pods| pods.len() == 2).await;
}

#[tokio::test]
async fn indexed_pods_know_their_index() {
    let running = start(&json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}));
    running.api.until("pods", |pods| pods.len() == 3).await;
    let pods = running.api.list("pods");
    let two = pods.iter().find(|pod| place(pod) == "2").cloned().unwrap_or_default();
    assert!(name(&two).starts_with("j-2-"));
    assert_eq!((&two["metadata"]["labels"][INDEX], &two["spec"]["hostname"]), (&json!("2"), &json!("j-2")));
    let env = &two["spec"]["containers"][0]["env"][0];
    assert_eq!(env["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(env["valueFrom"]["fieldRef"]["fieldPath"], format!("metadata.labels['{INDEX}']"));
    for pod in pods.iter().filter(|pod| place(pod) != "1") {
        end(&running.api, &name(pod), 0);
    }
    running.api.until("jobs", |jobs| jobs[0]["status"]["completedIndexes"] == "0,2").await;
    work(&running, |_| Some(0));
    assert_eq!(over(&running, "Complete").await["status"]["completedIndexes"], "0-2");
}

#[tokio::test]
async fn each_index_has_its_own_limit_and_all_others_run_on() {
    let running = start(&json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 1}));
    work(&running, |index| Some(i32::from(index == "1")));
    let job = over(&running, "Failed").await;
    assert_eq!((&job["status"]["failedIndexes"], &job["status"]["completedIndexes"]), (&json!("1"), &json!("0,2,3")));
    assert_eq!(condition(&job, "Failed")["reason"], "FailedIndexes");
    assert_eq!(job["status"]["failed"], 2);
    let pods = running.api.list("pods");
    let counts = pods.iter().filter(|pod| place(pod) == "1");
    let counts =
        counts.filter_map(|pod| pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"].as_str());
    let mut counts: Vec<_> = counts.collect();
    counts.sort_unstable();
    assert_eq!(counts, ["0", "1"]);
    let running = start(&json!({"completionMode": "Indexed", "completions": 9, "parallelism": 3,
        "backoffLimit": i32::MAX, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}));
    work(&running, |_| Some(1));
    assert_eq!(condition(&over(&running, "Failed").await, "Failed")["reason"], "MaxFailedIndexesExceeded");
}

#[tokio::test]
async fn policies_end_a_job_early_either_way() {
    let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    let running = start(&json!({"podFailurePolicy": {"rules": rules}, "podReplacementPolicy": "Failed"}));
    work(&running, |_| Some(42));
    let job = over(&running, "Failed").await;
    assert_eq!(condition(&job, "FailureTarget")["reason"], "PodFailurePolicy");
    let rules = json!([{"succeededIndexes": "0", "succeededCount": 1}]);
    let running = start(&json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": rules}}));
    work(&running, |index| (index == "0").then_some(0));
    let job = over(&running, "Complete").await;
    assert_eq!(condition(&job, "SuccessCriteriaMet")["reason"], "SuccessPolicy");
    assert_eq!(condition(&job, "Complete")["message"], "Matched rules at index 0");
    assert_eq!((&job["status"]["succeeded"], &job["status"]["failed"]), (&json!(1), &Value::Null));
    running.api.until("pods", |pods| pods.len() == 1).await;
}

#[tokio::test]
async fn suspending_takes_the_pods_and_resuming_starts_anew() {
    let running = start(&json!({"suspend": true}));
    running.api.until("jobs", |jobs| condition(&jobs[0], "Suspended")["status"] == "True").await;
    assert!(running.api.list("pods").is_empty() && running.api.list("jobs")[0]["status"]["startTime"].is_null());
    running.api.edit("jobs", "a", "j", |job| job["spec"]["suspend"] = json!(false));
    running.api.until("pods", |pods| pods.len() == 1).await;
    running.api.until("jobs", |jobs| condition(&jobs[0], "Suspended")["reason"] == "JobResumed").await;
    running.api.edit("jobs", "a", "j", |job| job["spec"]["suspend"] = json!(true));
    running.api.until("pods", <[Value]>::is_empty).await;
    running.api.until("jobs", |jobs| condition(&jobs[0], "Suspended")["status"] == "True").await;
    assert!(running.api.list("jobs")[0]["status"]["failed"].is_null(), "suspended pods are no failures");
    for reason in ["Suspended", "Resumed"] {
        running.api.until("events", |events| events.iter().any(|event| event["reason"] == reason)).await;
    }
}

#[tokio::test]
async fn a_deadline_ends_a_job() {
    let running = start(&json!({"activeDeadlineSeconds": 1}));
    running.api.until("pods", |pods| pods.len() == 1).await;
    assert_eq!(condition(&over(&running, "Failed").await, "Failed")["reason"], "DeadlineExceeded");
    running.api.until("pods", <[Value]>::is_empty).await;
}

#[tokio::test]
async fn deleted_pods_count_as_failed_unless_only_failed_ones_are_replaced() {
    let running = start(&json!({}));
    let leave = |running: &Running| {
        let pod = running.api.list("pods").remove(0);
        running.api.edit("pods", "a", &name(&pod), |pod| {
            run(pod, 1);
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        });
        name(&pod)
    };
    running.api.until("pods", |pods| pods.len() == 1).await;
    leave(&running);
    running.api.until("jobs", |jobs| jobs[0]["status"]["failed"] == 1).await;
    let running = start(&json!({"podReplacementPolicy": "Failed"}));
    running.api.until("pods", |pods| pods.len() == 1).await;
    let old = leave(&running);
    running.api.until("jobs", |jobs| jobs[0]["status"]["terminating"] == 1).await;
    assert_eq!(running.api.list("pods").len(), 1);
    end(&running.api, &old, 137);
    running.api.until("jobs", |jobs| jobs[0]["status"]["failed"] == 1).await;
}

#[tokio::test]
async fn a_released_pod_is_let_go_and_an_adopted_one_is_tracked() {
    let running = start(&json!({}));
    running.api.until("pods", |pods| pods.len() == 1).await;
    let first = name(&running.api.list("pods")[0]);
    running.api.edit("pods", "a", &first, |pod| pod["metadata"]["labels"] = json!({}));
    let is_free = |pod: &Value| {
        let none = |field: &str| pod["metadata"][field].as_array().is_none_or(Vec::is_empty);
        none("finalizers") && none("ownerReferences")
    };
    running.api.until("pods", |pods| is_free(named(pods, &first)) && pods.len() == 2).await;
    running.api.edit("jobs", "a", "j", |job| job["spec"]["parallelism"] = json!(2));
    running.api.edit("jobs", "a", "j", |job| job["spec"]["completions"] = json!(2));
    running.api.edit("pods", "a", &first, |pod| pod["metadata"]["labels"] = json!({"controller-uid": "job"}));
    running
        .api
        .until("pods", |pods| {
            let meta = &named(pods, &first)["metadata"];
            meta["finalizers"] == json!([TRACKING]) && meta["ownerReferences"][0]["uid"] == "job"
        })
        .await;
}

#[tokio::test]
async fn a_pod_without_controller_is_let_go_also_beside_a_finished_job() {
    let mut finished = job(&json!({}));
    finished["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a",
        "finalizers": [TRACKING], "labels": {"controller-uid": "job", "batch.kubernetes.io/job-name": "j"}},
        "spec": {"containers": []}, "status": {"phase": "Succeeded"}});
    let running = Running::new(&[finished, pod]);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.api.until("pods", |pods| pods[0]["metadata"]["finalizers"] == json!([])).await;
}

#[tokio::test]
async fn a_pod_counts_only_once_its_finalizer_is_gone() {
    let running = start(&json!({}));
    running.api.until("pods", |pods| pods.len() == 1).await;
    running.api.refuse("PATCH", "pods", 3, 422, "a webhook says no");
    let pod = name(&running.api.list("pods")[0]);
    end(&running.api, &pod, 0);
    over(&running, "Complete").await;
    let finalizers = running.api.list("pods")[0]["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!([]));
}

#[tokio::test]
async fn pods_of_another_job_do_not_hold_up_this_one() {
    let running = Running::new(&[job(&json!({"parallelism": 0}))]);
    running.api.put(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": "a",
        "finalizers": [TRACKING], "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j",
            "uid": "former", "controller": true}]}, "spec": {"containers": []}}));
    running.api.refuse("PATCH", "pods", 1000, 500, "never");
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.api.until("jobs", |jobs| !jobs[0]["status"]["startTime"].is_null()).await;
}

#[tokio::test]
async fn the_time_before_a_suspension_does_not_count_for_the_deadline() {
    let long_ago = (Timestamp::now() - SignedDuration::from_hours(1)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut held = job(&json!({"suspend": true, "activeDeadlineSeconds": 600}));
    held["status"] = json!({"startTime": long_ago});
    let running = Running::new(&[held]);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    let is_held = |job: &Value| condition(job, "Suspended")["status"] == "True" && job["status"]["startTime"].is_null();
    running.api.until("jobs", |jobs| is_held(&jobs[0])).await;
    running.api.edit("jobs", "a", "j", |job| {
        // As an older version left it.
        job["status"]["startTime"] = json!(long_ago);
        job["spec"]["suspend"] = json!(false);
    });
    running.api.until("pods", |pods| pods.len() == 1).await;
    running.api.until("jobs", |jobs| condition(&jobs[0], "Suspended")["status"] == "False").await;
    assert!(condition(&running.api.list("jobs")[0], "FailureTarget").is_null());
}

#[tokio::test]
async fn anothers_job_is_left_alone_and_pods_of_a_gone_one_are_let_go() {
    let running = start(&json!({"managedBy": "example.com/other"}));
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "old", "namespace": "a",
        "finalizers": [TRACKING, "example.com/kept"], "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job",
            "name": "gone", "uid": "gone", "controller": true}]}, "spec": {"containers": []}});
    running.api.put(&pod);
    pod["metadata"]["name"] = json!("loose");
    pod["metadata"]["ownerReferences"] = Value::Null;
    running.api.put(&pod);
    let left = json!(["example.com/kept"]);
    running.api.until("pods", |pods| pods.iter().all(|pod| pod["metadata"]["finalizers"] == left)).await;
    assert_eq!(running.api.list("pods").len(), 2);
    assert!(running.api.list("jobs")[0]["status"].is_null());
}
