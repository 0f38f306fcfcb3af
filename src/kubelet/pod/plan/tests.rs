use super::*;
use crate::pod::observed::Sandbox;
use serde_json::json;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn sandbox(ready: bool) -> Sandbox {
    Sandbox { id: "s".into(), attempt: 0, ready, stopped: !ready, created_at: 1, ips: vec![] }
}

fn seen(pod: &Pod, name: &str, state: State, exit_code: i32) -> Seen {
    Seen {
        id: format!("{name}-id"),
        sandbox: "s".into(),
        name: name.into(),
        attempt: 0,
        state,
        created_at: 1,
        started_at: 1,
        finished_at: 2,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        hash: super::super::find_container(pod, name).map(labels::hash).unwrap_or_default(),
    }
}

fn steps(pod: &Pod, sandboxes: Vec<Sandbox>, containers: Vec<Seen>, started: &[&str]) -> Vec<Step> {
    let observed = Observed { sandboxes, containers };
    plan(&View {
        pod,
        observed: &observed,
        started: &started.iter().map(|s| (*s).to_owned()).collect(),
        condemned: &HashMap::new(),
        recycled: &HashSet::new(),
    })
}

fn start(name: &str, attempt: u32, after: Option<&str>) -> Step {
    Step::Start { name: name.into(), attempt, after: after.map(str::to_owned) }
}

#[test]
fn a_new_pod_gets_a_sandbox_then_its_containers() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}));
    assert_eq!(steps(&pod, vec![], vec![], &[]), [Step::RunSandbox { attempt: 0 }]);
    assert_eq!(steps(&pod, vec![sandbox(true)], vec![], &[]), [start("a", 0, None), start("b", 0, None)]);
}

#[test]
fn init_containers_go_one_by_one() {
    let pod = pod(json!({"initContainers": [{"name": "i1"}, {"name": "i2"}], "containers": [{"name": "a"}]}));
    let live = || vec![sandbox(true)];
    assert_eq!(steps(&pod, live(), vec![], &[]), [start("i1", 0, None)]);
    assert_eq!(steps(&pod, live(), vec![seen(&pod, "i1", State::Running, 0)], &[]), []);
    let one = seen(&pod, "i1", State::Exited, 0);
    assert_eq!(steps(&pod, live(), vec![one.clone()], &[]), [start("i2", 0, None)]);
    let both = vec![one, seen(&pod, "i2", State::Exited, 0)];
    assert_eq!(steps(&pod, live(), both, &[]), [start("a", 0, None)]);
}

#[test]
fn a_sidecar_opens_the_way_once_started_and_goes_last() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}));
    let live = || vec![sandbox(true)];
    let side = seen(&pod, "s", State::Running, 0);
    assert_eq!(steps(&pod, live(), vec![side.clone()], &[]), []);
    assert_eq!(steps(&pod, live(), vec![side.clone()], &["s-id"]), [start("a", 0, None)]);
    let done = vec![side, seen(&pod, "a", State::Exited, 0)];
    assert!(matches!(steps(&pod, live(), done, &["s-id"])[..], [Step::Kill { restart: false, .. }]));
}

#[test]
fn restart_policies_decide_on_the_exit_code() {
    for (policy, code, restarts) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 1, false)]
    {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        let got = steps(&pod, vec![sandbox(true)], vec![seen(&pod, "a", State::Exited, code)], &[]);
        let expected = if restarts { vec![start("a", 1, Some("a-id"))] } else { vec![] };
        assert_eq!(got, expected, "{policy} {code}");
        let dead = steps(&pod, vec![sandbox(false)], vec![seen(&pod, "a", State::Exited, code)], &[]);
        assert_eq!(dead.is_empty(), !restarts, "{policy} {code} in a dead sandbox");
    }
}

#[test]
fn a_changed_image_replaces_the_container() {
    let old = pod(json!({"containers": [{"name": "a", "image": "1"}]}));
    let new = pod(json!({"containers": [{"name": "a", "image": "2"}]}));
    let got = steps(&new, vec![sandbox(true)], vec![seen(&old, "a", State::Running, 0)], &[]);
    assert!(
        matches!(&got[..], [Step::Kill { restart: true, why, .. }] if why == "Container a definition changed, will be restarted")
    );
}

#[test]
fn what_a_probe_killed_backs_off_too() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    let killed = seen(&pod, "a", State::Exited, 137);
    let recycled = HashSet::from([killed.id.clone()]);
    let steps = plan(&View {
        pod: &pod,
        observed: &Observed { sandboxes: vec![sandbox(true)], containers: vec![killed] },
        started: &HashSet::new(),
        condemned: &HashMap::new(),
        recycled: &recycled,
    });
    assert_eq!(steps, [start("a", 1, Some("a-id"))]);
}

#[test]
fn a_dead_sandbox_is_stopped_before_the_next_is_made() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let dead = Sandbox { stopped: false, ..sandbox(false) };
    let stop = || Step::StopSandbox("s".into());
    assert_eq!(steps(&pod, vec![dead.clone()], vec![], &[]), [stop()]);
    assert_eq!(steps(&pod, vec![sandbox(false)], vec![], &[]), [Step::RunSandbox { attempt: 1 }]);
    let next = Sandbox { id: "t".into(), attempt: 1, ..sandbox(true) };
    assert_eq!(steps(&pod, vec![next, dead], vec![], &[]), [stop(), start("a", 0, None)]);
}

#[test]
fn an_init_container_that_was_replaced_runs_again() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}));
    for code in [0, 137] {
        let killed = seen(&pod, "i", State::Exited, code);
        let recycled = HashSet::from([killed.id.clone()]);
        let steps = plan(&View {
            pod: &pod,
            observed: &Observed { sandboxes: vec![sandbox(true)], containers: vec![killed] },
            started: &HashSet::new(),
            condemned: &HashMap::new(),
            recycled: &recycled,
        });
        assert_eq!(steps, [start("i", 1, Some("i-id"))]);
    }
}
