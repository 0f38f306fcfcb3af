//! Shares, fairness and bounds, without a server.

use super::*;
use crate::call::Query;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The policy that every cluster starts with, and more.
fn policy(more: &[serde_json::Value]) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(mini_store::Config::new(dir.path().join("db"))).unwrap();
    let objects = [true, false].into_iter().flat_map(mini_resources::bootstrap_flow).chain(more.iter().cloned());
    let ops = objects.map(|mut object| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        object["metadata"]["uid"] = format!("uid-{name}").into();
        let prefix = if object["kind"] == "FlowSchema" { policy::SCHEMAS } else { policy::LEVELS };
        let bytes = bytes::Bytes::from(object.to_string());
        let key = format!("{prefix}{name}").into();
        mini_store::Op::Put { key, expect: mini_store::Expect::Any, finish: Box::new(move |_| bytes) }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(store.write(ops.collect())).unwrap();
    Policy::read(&store.snapshot())
}

fn info(method: &str, path: &str) -> RequestInfo {
    RequestInfo::parse(&method.parse().unwrap(), path, &Query::default())
}

fn place(level: &str, of: &str) -> Place {
    Place { level: level.into(), schema: "s".into(), of: of.to_owned(), mutating: false }
}

struct Room(Arc<Mutex<Seats>>);

impl Room {
    fn new(policy: &Policy) -> Self {
        let mut seats = Seats::new(SEATS);
        seats.follow(policy);
        Self(Arc::new(Mutex::new(seats)))
    }

    fn enter(&self, level: &str, of: &str) -> Entry {
        self.0.lock().enter(place(level, of), false)
    }

    fn wait(&self, level: &str, of: &str) -> Option<tokio::sync::oneshot::Receiver<Seat>> {
        match self.enter(level, of) {
            Entry::Wait(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// As many as get a seat at once.
    fn fill(&self, level: &str, of: &str) -> Vec<Seat> {
        std::iter::from_fn(|| match self.enter(level, of) {
            Entry::Seat(place) => Some(Seat { seats: self.0.clone(), place: Some(place) }),
            _ => None,
        })
        .collect()
    }
}

fn ready(ticket: &mut tokio::sync::oneshot::Receiver<Seat>) -> Option<Seat> {
    match pin!(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(seat) => Some(seat.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn requests_belong_where_upstream_puts_them() {
    let policy = policy(&[serde_json::json!({"kind": "FlowSchema", "metadata": {"name": "mine"}, "spec": {
        "priorityLevelConfiguration": {"name": "workload-high"}, "matchingPrecedence": 50, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods/status", "secrets"], "namespaces": ["a"]}]}]}})]);
    let user = |name: &str, groups: &[&str]| UserInfo::new(name, groups);
    let account = user("system:serviceaccount:kube-system:x", &["system:serviceaccounts"]);
    for (user, method, path, schema, level, of) in [
        (user("a", &["system:masters"]), "GET", "/api/v1/pods", "exempt", "exempt", ""),
        (UserInfo::anonymous(), "GET", "/livez", "probes", "exempt", ""),
        (UserInfo::anonymous(), "GET", "/version", "global-default", "global-default", "system:anonymous"),
        (user("n", &["system:nodes"]), "PUT", "/api/v1/nodes/n/status", "system-node-high", "node-high", "n"),
        (user("n", &["system:nodes"]), "GET", "/api/v1/pods", "system-nodes", "system", "n"),
        (account, "GET", "/api/v1/namespaces/b/pods", "kube-system-service-accounts", "workload-high", "b"),
        (
            user("system:kube-scheduler", &[]),
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x",
            "system-leader-election",
            "leader-election",
            "system:kube-scheduler",
        ),
        (user("jane", &[]), "GET", "/api/v1/namespaces/a/secrets", "mine", "workload-high", ""),
        (user("jane", &[]), "GET", "/api/v1/namespaces/b/secrets", "global-default", "global-default", "jane"),
        (user("jane", &[]), "GET", "/api/v1/secrets", "global-default", "global-default", "jane"),
    ] {
        let flow = policy.classify(&user, &info(method, path)).unwrap();
        assert_eq!((&*flow.schema.name, &*flow.level.name, &*flow.of), (schema, level, of), "{} {path}", user.name);
        assert_eq!(flow.schema.uid, format!("uid-{schema}"));
    }
}

#[test]
fn what_is_lent_is_used_and_what_is_not_is_kept() {
    let room = Room::new(&policy(&[]));
    // All others lend some and keep some: the greedy one has more than its share, and not all.
    let greedy = room.fill("workload-low", "a");
    let nominal = room.0.lock().levels["workload-low"].nominal;
    assert!(greedy.len() > nominal && greedy.len() < SEATS, "{} of {nominal}", greedy.len());
    let node = room.fill("node-high", "n");
    let least = room.0.lock().levels["node-high"].nominal * 75 / 100;
    assert!(node.len() >= least, "{} of {least}", node.len());
    assert!(!room.fill("leader-election", "l").is_empty());
    assert!(matches!(room.enter("exempt", ""), Entry::Seat(_)));
}

#[test]
fn flows_take_turns_and_queues_are_bounded() {
    let room = Room::new(&policy(&[]));
    let mut held = room.fill("global-default", "greedy");
    let mut greedy: Vec<_> = std::iter::from_fn(|| room.wait("global-default", "greedy")).collect();
    // Its hand of 6 queues of 50.
    assert_eq!(greedy.len(), 6 * 50);
    assert!(matches!(room.enter("global-default", "greedy"), Entry::Refused(Refusal::QueueFull)));
    let patient = room.0.lock().enter(place("global-default", "greedy"), true);
    assert!(matches!(patient, Entry::Wait(_)), "mini's own components are never refused");
    drop(patient);
    // Somebody else comes late and is served first: they have no seat at all.
    let mut late = room.wait("global-default", "late").unwrap();
    assert!(ready(&mut late).is_none());
    drop(held.pop());
    let seat = ready(&mut late).unwrap();
    assert!(greedy.iter_mut().all(|ticket| ready(ticket).is_none()));
    drop(seat);
    // A seat that is given back is given on.
    assert!(greedy.iter_mut().find_map(ready).is_some());
    // Those who leave make room for others.
    greedy.clear();
    assert!(!room.fill("global-default", "greedy").is_empty());
    held.clear();
    assert_eq!(room.0.lock().in_flight, [0, 0]);
    assert_eq!(room.0.lock().waiting(false), 0);
}

#[test]
fn the_last_resort_does_not_queue() {
    let room = Room::new(&policy(&[]));
    let held = room.fill("catch-all", "a");
    assert!(!held.is_empty());
    assert!(matches!(room.enter("catch-all", "b"), Entry::Refused(Refusal::ConcurrencyLimit)));
}
