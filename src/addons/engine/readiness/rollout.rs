//! Has a workload rolled out? As `kubectl rollout status` judges it.

use super::{condition, said};
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// How far it has come.
    Waiting(String),
    Failed(String),
}

pub(super) fn progress(object: &Value) -> Progress {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |key: &str| status[key].as_i64().unwrap_or_default();
    let observed = count("observedGeneration") >= object["metadata"]["generation"].as_i64().unwrap_or_default();
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let reached = |new: i64, ready: i64, wanted: i64| {
        if observed && new >= wanted && ready >= wanted {
            return Progress::Done;
        }
        Progress::Waiting(format!("{} of {wanted} ready", new.min(ready)))
    };
    match object["kind"].as_str() {
        Some("Deployment") => {
            let late = condition(object, "Progressing").filter(|found| found["reason"] == "ProgressDeadlineExceeded");
            match late {
                Some(late) if observed => Progress::Failed(said(late)),
                _ if observed && count("replicas") > count("updatedReplicas") => {
                    Progress::Waiting(format!("{} old replicas end", count("replicas") - count("updatedReplicas")))
                }
                _ => reached(count("updatedReplicas"), count("availableReplicas"), wanted),
            }
        }
        // No node yet wants none.
        Some("DaemonSet") => {
            reached(count("updatedNumberScheduled"), count("numberAvailable"), count("desiredNumberScheduled").max(1))
        }
        Some("StatefulSet") => {
            let current = status["currentRevision"] == status["updateRevision"];
            let updated = if current { count("readyReplicas") } else { count("updatedReplicas") };
            reached(updated, count("readyReplicas"), wanted)
        }
        _ => match (condition(object, "Complete"), condition(object, "Failed")) {
            (Some(done), _) if done["status"] == "True" => Progress::Done,
            (_, Some(failed)) if failed["status"] == "True" => Progress::Failed(said(failed)),
            _ => Progress::Waiting(format!(
                "{} of {} succeeded",
                count("succeeded"),
                spec["completions"].as_i64().unwrap_or(1)
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_has_its_own_end() {
        let waiting = |text: &str| Progress::Waiting(text.to_owned());
        let deployment = |status: Value| {
            progress(
                &json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}),
            )
        };
        let all = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        assert_eq!(deployment(all.clone()), Progress::Done);
        let with = |key: &str, value: i64| {
            let mut status = all.clone();
            status[key] = value.into();
            deployment(status)
        };
        assert_eq!(with("observedGeneration", 1), waiting("2 of 2 ready"));
        assert_eq!(with("availableReplicas", 1), waiting("1 of 2 ready"));
        assert_eq!(with("replicas", 3), waiting("1 old replicas end"));
        let late = json!({"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "m"});
        let late = deployment(json!({"observedGeneration": 2, "conditions": [late]}));
        assert_eq!(late, Progress::Failed("ProgressDeadlineExceeded: m".into()));

        let daemons = |status: Value| progress(&json!({"kind": "DaemonSet", "status": status}));
        assert_eq!(daemons(json!({})), waiting("0 of 1 ready"));
        let all = json!({"desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1});
        assert_eq!(daemons(all), Progress::Done);

        let job = |status: Value| progress(&json!({"kind": "Job", "status": status}));
        assert_eq!(job(json!({"active": 1})), waiting("0 of 1 succeeded"));
        assert_eq!(job(json!({"conditions": [{"type": "Complete", "status": "True"}]})), Progress::Done);
    }
}
