use super::*;
use crate::pod::observed::Sandbox;
use serde_json::json;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn seen(name: &str, state: State, exit_code: i32) -> Seen {
    Seen {
        id: format!("{name}-id"),
        sandbox: "s".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: 1,
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_id: "sha256:1".into(),
        hash: String::new(),
    }
}

fn status(pod: &Pod, containers: Vec<Seen>, ready: &[&str], last: bool) -> PodStatus {
    let sandboxes = vec![Sandbox {
        id: "s".into(),
        attempt: 0,
        ready: true,
        stopped: false,
        created_at: 1,
        ips: vec!["10.1.0.2".into()],
    }];
    let ready: HashSet<String> = ready.iter().map(|r| (*r).to_owned()).collect();
    generate(&Facts {
        pod,
        observed: &Observed { sandboxes, containers },
        waiting: &HashMap::new(),
        started: &ready,
        ready: &ready,
        recycled: &HashSet::new(),
        failed: None,
        last,
        start_time: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH,
        node_ip: "192.0.2.1".parse().unwrap(),
        before: &PodStatus::default(),
    })
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn phases_follow_policy_and_exit_codes() {
    for (policy, containers, phase) in [
        ("Always", vec![], "Pending"),
        ("Always", vec![seen("a", State::Running, 0)], "Running"),
        ("Always", vec![seen("a", State::Exited, 1)], "Running"),
        ("OnFailure", vec![seen("a", State::Exited, 1)], "Running"),
        ("OnFailure", vec![seen("a", State::Exited, 0)], "Succeeded"),
        ("Never", vec![seen("a", State::Exited, 0)], "Succeeded"),
        ("Never", vec![seen("a", State::Exited, 3)], "Failed"),
    ] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        assert_eq!(status(&pod, containers, &[], false).phase.as_deref(), Some(phase), "{policy}");
    }
    let always = pod(json!({"containers": [{"name": "a"}]}));
    assert_eq!(status(&always, vec![seen("a", State::Exited, 137)], &[], true).phase.as_deref(), Some("Failed"));
}

#[test]
fn readiness_reaches_the_conditions() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let both = || vec![seen("a", State::Running, 0), seen("b", State::Running, 0)];
    let half = status(&pod, both(), &["a-id"], false);
    let ready = condition(&half, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ContainersNotReady")));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [b]"));
    let whole = status(&pod, both(), &["a-id", "b-id"], false);
    assert_eq!(condition(&whole, "Ready").status, "True");
    assert_eq!(whole.pod_ip.as_deref(), Some("10.1.0.2"));
}

#[test]
fn init_containers_hold_the_pod_pending() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    let waiting = status(&pod, vec![seen("i", State::Running, 0)], &[], false);
    assert_eq!(waiting.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&waiting, "Initialized").message.as_deref(), Some("containers with incomplete status: [i]"));
    let state = waiting.container_statuses.unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
}

#[test]
fn a_start_that_failed_for_good_is_an_end() {
    let start_error = || Seen { started_at: 0, reason: "StartError".into(), ..seen("a", State::Exited, 128) };
    let failed = Waiting { reason: "RunContainerError", message: "no such file".into(), retry: None };
    let waiting = HashMap::from([("a".to_owned(), failed)]);
    for (policy, waits) in [("Never", false), ("OnFailure", true), ("Always", true)] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let none = HashSet::new();
        let mut facts = Facts {
            pod: &pod,
            observed: &Observed { sandboxes: vec![], containers: vec![start_error()] },
            waiting: &waiting,
            started: &none,
            ready: &none,
            recycled: &HashSet::new(),
            failed: None,
            last: false,
            start_time: Timestamp::UNIX_EPOCH,
            now: Timestamp::UNIX_EPOCH,
            node_ip: "192.0.2.1".parse().unwrap(),
            before: &PodStatus::default(),
        };
        let first = generate(&facts);
        facts.before = &first;
        let container = generate(&facts).container_statuses.unwrap().remove(0);
        let state = container.state.unwrap();
        assert_eq!(state.waiting.is_some(), waits, "{policy}");
        let ended = if waits { container.last_state.unwrap().terminated } else { state.terminated }.unwrap();
        assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("StartError"), 128));
        assert_eq!(ended.started_at, Some(Time(Timestamp::UNIX_EPOCH)));
    }
}

#[test]
fn a_container_that_is_replaced_does_not_end_its_pod() {
    for policy in ["Never", "OnFailure", "Always"] {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let observed = Observed { sandboxes: vec![], containers: vec![seen("a", State::Exited, 0)] };
        let phase = |recycled: &HashSet<String>| {
            let status = generate(&Facts {
                pod: &pod,
                observed: &observed,
                waiting: &HashMap::new(),
                started: &HashSet::new(),
                ready: &HashSet::new(),
                recycled,
                failed: None,
                last: false,
                start_time: Timestamp::UNIX_EPOCH,
                now: Timestamp::UNIX_EPOCH,
                node_ip: "192.0.2.1".parse().unwrap(),
                before: &PodStatus::default(),
            });
            status.phase.unwrap()
        };
        assert_eq!(phase(&HashSet::from(["a-id".to_owned()])), "Running", "{policy}");
        assert_eq!(phase(&HashSet::new()), if policy == "Always" { "Running" } else { "Succeeded" });
    }
}
