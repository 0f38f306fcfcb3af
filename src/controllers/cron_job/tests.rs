//! CronJobs against the fake API server.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::fake::{Running, named};

fn ago(seconds: i64) -> String {
    (Timestamp::now() - SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn cron(policy: &str, created: i64, extra: &Value) -> Value {
    let mut cron = json!({"apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "a", "uid": "cron", "creationTimestamp": ago(created)},
        "spec": {"schedule": "* * * * *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1, "jobTemplate": {"metadata": {"labels": {"l": "1"}, "annotations": {"n": "2"}},
                "spec": {"template": {"spec": {"containers": []}}}}},
        "status": {}});
    for (name, value) in extra.as_object().into_iter().flatten() {
        cron["spec"][name] = value.clone();
    }
    cron
}

fn job(name: &str, end: Option<&str>, started: i64) -> Value {
    let conditions = end.map(|end| json!([{"type": end, "status": "True"}]));
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "a", "uid": name,
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron",
            "controller": true}]},
        "spec": {"template": {"spec": {"containers": []}}},
        "status": {"startTime": ago(started), "completionTime": end.filter(|e| *e == "Complete").map(|_| ago(started)),
            "conditions": conditions}})
}

fn with_active(mut cron: Value, jobs: &[&str]) -> Value {
    cron["status"]["active"] = jobs.iter().map(|name| json!({"kind": "Job", "name": name, "uid": name})).collect();
    cron
}

fn start(objects: &[Value]) -> Running {
    let running = Running::new(objects);
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running
}

async fn told(running: &Running, reason: &str) {
    running.api.until("events", |events| events.iter().any(|event| event["reason"] == reason)).await;
}

#[tokio::test]
async fn the_latest_missed_time_makes_one_job_named_by_its_minute() {
    let running = start(&[cron("Allow", 200, &json!({"timeZone": "Asia/Kolkata"}))]);
    running.api.until("cronjobs", |crons| named(crons, "tick")["status"]["active"][0]["kind"] == "Job").await;
    let jobs = running.api.list("jobs");
    assert_eq!(jobs.len(), 1);
    let made = &jobs[0];
    let due: Timestamp =
        running.api.list("cronjobs")[0]["status"]["lastScheduleTime"].as_str().unwrap().parse().unwrap();
    assert_eq!(made["metadata"]["name"], format!("tick-{}", due.as_second() / 60));
    assert_eq!((&made["metadata"]["labels"]["l"], &made["metadata"]["annotations"]["n"]), (&json!("1"), &json!("2")));
    assert!(made["metadata"]["annotations"][DUE].as_str().unwrap().ends_with("+05:30"));
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "cron");
    told(&running, "SuccessfulCreate").await;
}

#[tokio::test]
async fn policies_decide_about_a_job_that_still_runs() {
    let running = start(&[with_active(cron("Forbid", 200, &json!({})), &["old"]), job("old", None, 100)]);
    told(&running, "JobAlreadyActive").await;
    assert_eq!(running.api.list("jobs").len(), 1);
    let running = start(&[with_active(cron("Replace", 200, &json!({})), &["old"]), job("old", None, 100)]);
    running.api.until("jobs", |jobs| jobs.len() == 1 && named(jobs, "old").is_null()).await;
    told(&running, "SuccessfulDelete").await;
    let running = start(&[with_active(cron("Allow", 200, &json!({})), &["old"]), job("old", None, 100)]);
    running.api.until("cronjobs", |crons| crons[0]["status"]["active"].as_array().is_some_and(|a| a.len() == 2)).await;
}

#[tokio::test]
async fn suspended_late_and_unreadable_schedules_make_nothing() {
    let running = start(&[cron("Allow", 200, &json!({"suspend": true}))]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(running.api.list("jobs").is_empty());
    let running = start(&[cron("Allow", 200, &json!({"timeZone": "No/Where"}))]);
    told(&running, "UnknownTimeZone").await;
    let running = start(&[cron("Allow", 200, &json!({"schedule": "often"}))]);
    told(&running, "UnparseableSchedule").await;
    assert!(running.api.list("jobs").is_empty());
}

#[tokio::test]
async fn ended_jobs_leave_the_list_and_the_oldest_go() {
    let jobs = [
        with_active(cron("Forbid", 20, &json!({"suspend": true})), &["new", "lost"]),
        job("old", Some("Complete"), 300),
        job("new", Some("Complete"), 200),
        job("bad", Some("Failed"), 400),
        job("worse", Some("Failed"), 100),
        job("byhand", None, 10),
    ];
    let running = start(&jobs);
    running
        .api
        .until("jobs", |jobs| {
            let has = |name| !named(jobs, name).is_null();
            !has("old") && has("new") && !has("bad") && has("worse") && has("byhand")
        })
        .await;
    for reason in ["SawCompletedJob", "MissingJob", "UnexpectedJob", "SuccessfulDelete"] {
        told(&running, reason).await;
    }
    let done = |cron: &Value| cron["status"]["active"].is_null() && !cron["status"]["lastSuccessfulTime"].is_null();
    running.api.until("cronjobs", |crons| done(&crons[0])).await;
}

#[tokio::test]
async fn old_jobs_that_cannot_go_do_not_hold_up_new_ones() {
    let objects = [
        cron("Allow", 200, &json!({"successfulJobsHistoryLimit": 0})),
        job("old", Some("Complete"), 300),
        job("older", Some("Complete"), 400),
    ];
    let running = Running::new(&objects);
    running.api.refuse("DELETE", "jobs", 1000, 500, "never");
    running.start(Controller::new(&running.client, &running.caches, running.recorder()));
    running.api.until("jobs", |jobs| jobs.len() == 3).await;
    told(&running, "FailedDelete").await;
}

#[test]
fn times_that_count_from_each_other_do_so_from_the_last_one() {
    let now: Timestamp = "2026-01-01T00:01:40Z".parse().unwrap();
    let mut every: CronJob = serde_json::from_value(cron("Allow", 0, &json!({"startingDeadlineSeconds": 30}))).unwrap();
    every.metadata.creation_timestamp = Some(Time("2026-01-01T00:00:00Z".parse().unwrap()));
    let schedule = Schedule::parse("@every 1m").unwrap();
    let since = due::since(&every, &schedule, &CronJobStatus::default(), now);
    let found = due::latest(&schedule, &TimeZone::UTC, since, now);
    assert_eq!(found.latest.map(|at| at.to_string()).as_deref(), Some("2026-01-01T00:01:00Z"));
    let next = due::next(&schedule, &TimeZone::UTC, (since, &found), now);
    assert_eq!(next, Some(Duration::from_secs(20)));
}
