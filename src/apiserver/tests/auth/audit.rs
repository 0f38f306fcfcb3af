//! The audit log, as a policy says.

use crate::harness::{As, Server, json};
use http::Method;
use http_body_util::BodyExt;
use mini_apiserver::audit::{LogFile, Settings};
use serde_json::{Value, json as j};
use std::path::PathBuf;
use std::time::Duration;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ['/readyz*', /metrics]}
- {level: None, users: [system:apiserver]}
- {level: Metadata, resources: [{resources: [secrets, serviceaccounts/token]}]}
- {level: RequestResponse, resources: [{resources: [configmaps]}], namespaces: [a]}
- {level: Request, resources: [{resources: [namespaces]}], omitStages: []}
- {level: Metadata}
";

struct Audited {
    server: Server,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Audited {
    async fn start(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
        std::fs::write(&file, policy).unwrap();
        let settings = Settings {
            policy: file,
            log: LogFile { path: log.clone(), max_bytes: 1 << 20, max_age: Duration::ZERO, max_backups: 1 },
        };
        let server = Server::start_with(|config| config.audit = Some(settings)).await;
        Self { server, log, _dir: dir }
    }

    /// The events that have this ID, once there are so many of them.
    async fn events(&self, id: &str, count: usize) -> Vec<Value> {
        for _ in 0..100 {
            let text = std::fs::read_to_string(&self.log).unwrap();
            let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let found: Vec<Value> = events.filter(|event| event["auditID"] == id).collect();
            if found.len() >= count {
                assert_eq!(found.len(), count, "{found:#?}");
                return found;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("no {count} events {id}: {}", std::fs::read_to_string(&self.log).unwrap());
    }

    async fn call(&self, id: &str, who: As<'_>, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let headers = [("audit-id", id), ("user-agent", "test/1")];
        json(self.server.send(who, method, path, &headers, body.as_ref()).await).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_recorded_as_far_as_the_policy_says() {
    let s = Audited::start(POLICY).await;
    let admin = || s.server.admin();
    let (code, _) =
        s.call("ns", admin(), Method::POST, "/api/v1/namespaces", Some(j!({"metadata": {"name": "a"}}))).await;
    assert_eq!(code, 201);
    let events = s.events("ns", 1).await;
    let event = &events[0];
    assert_eq!((&event["kind"], &event["apiVersion"]), (&j!("Event"), &j!("audit.k8s.io/v1")));
    assert_eq!(
        (&event["level"], &event["stage"], &event["verb"]),
        (&j!("Request"), &j!("ResponseComplete"), &j!("create"))
    );
    assert_eq!((&event["requestURI"], &event["userAgent"]), (&j!("/api/v1/namespaces"), &j!("test/1")));
    assert_eq!(event["sourceIPs"], j!(["127.0.0.1"]));
    assert_eq!(event["objectRef"], j!({"resource": "namespaces", "name": "a", "apiVersion": "v1"}));
    assert_eq!(event["responseStatus"], j!({"metadata": {}, "code": 201}));
    assert_eq!(event["requestObject"], j!({"metadata": {"name": "a"}}));
    assert!(event.get("responseObject").is_none() && event.get("impersonatedUser").is_none());
    assert!(event["user"]["groups"].as_array().unwrap().contains(&j!("system:masters")), "{event}");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    for field in ["requestReceivedTimestamp", "stageTimestamp"] {
        assert_eq!(event[field].as_str().unwrap().len(), "2026-01-02T03:04:05.000006Z".len(), "{event}");
    }

    // Bodies: not of secrets and tokens here, and both ways of these.
    let secret = j!({"metadata": {"name": "s"}, "stringData": {"k": "hush"}});
    assert_eq!(s.call("secret", admin(), Method::POST, "/api/v1/namespaces/a/secrets", Some(secret)).await.0, 201);
    let account = j!({"metadata": {"name": "robot"}});
    s.call("sa", admin(), Method::POST, "/api/v1/namespaces/a/serviceaccounts", Some(account)).await;
    let request = j!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
    let path = "/api/v1/namespaces/a/serviceaccounts/robot/token";
    let (_, made) = s.call("token", admin(), Method::POST, path, Some(request)).await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    for id in ["secret", "token"] {
        let event = &s.events(id, 1).await[0];
        assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none(), "{event}");
    }
    let map = j!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    s.call("map", admin(), Method::POST, "/api/v1/namespaces/a/configmaps", Some(map.clone())).await;
    let event = &s.events("map", 1).await[0];
    assert_eq!((&event["requestObject"], &event["responseObject"]["data"]), (&map, &j!({"k": "v"})));
    assert!(event["responseObject"]["metadata"].get("managedFields").is_none(), "{event}");
    let patch = [("audit-id", "patch"), ("content-type", "application/merge-patch+json")];
    let body = j!({"data": {"k": "w"}});
    let answer = s.server.send(admin(), Method::PATCH, "/api/v1/namespaces/a/configmaps/m", &patch, Some(&body)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(s.events("patch", 1).await[0]["requestObject"], body);

    // Failures, impersonation, and credentials that were refused.
    let headers = [("audit-id", "jane"), ("impersonate-user", "jane")];
    assert_eq!(s.server.send(admin(), Method::GET, "/api/v1/nodes", &headers, None).await.status(), 403);
    let event = &s.events("jane", 1).await[0];
    assert_eq!(event["impersonatedUser"], j!({"username": "jane", "groups": ["system:authenticated"]}));
    assert_ne!(event["user"]["username"], "jane");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    let status = &event["responseStatus"];
    assert_eq!((&status["code"], &status["reason"], &status["status"]), (&j!(403), &j!("Forbidden"), &j!("Failure")));
    let headers = [("audit-id", "refused"), ("impersonate-user", "jane")];
    let answer = s.server.send(As::Token(&token), Method::GET, "/api/v1/nodes", &headers, None).await;
    assert_eq!(answer.status(), 403);
    let event = &s.events("refused", 1).await[0];
    assert_eq!(event["user"]["username"], "system:serviceaccount:a:robot");
    assert_eq!(event["responseStatus"]["code"], 403);
    s.call("wrong", As::Token("rubbish"), Method::GET, "/api/v1/nodes", None).await;
    let event = &s.events("wrong", 1).await[0];
    assert_eq!((&event["stage"], &event["user"]), (&j!("ResponseStarted"), &j!({})));
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: bearer");

    // Nothing of what is not wanted, and no secret anywhere.
    assert_eq!(s.call("quiet", admin(), Method::GET, "/readyz", None).await.0, 200);
    let text = std::fs::read_to_string(&s.log).unwrap();
    assert!(
        !text.contains("\"quiet\"") && !text.contains(&token) && !text.contains("hush") && !text.contains("rubbish")
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(s.log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (_, metrics) = s.server.call(admin(), "GET", "/metrics", None).await;
    assert!(metrics.as_str().unwrap().contains("\napiserver_audit_event_total "), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_told_when_it_begins_and_when_it_ends() {
    let s =
        Audited::start("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, verbs: [watch]}]}").await;
    let headers = [("audit-id", "watch")];
    let path = "/api/v1/configmaps?watch=1";
    let mut answer = s.server.send(s.server.admin(), Method::GET, path, &headers, None).await;
    assert_eq!(answer.headers()["audit-id"], "watch");
    let stages = |events: &[Value]| -> Vec<String> {
        events.iter().map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(stages(&s.events("watch", 2).await), ["RequestReceived", "ResponseStarted"]);
    drop(tokio::time::timeout(Duration::from_millis(50), answer.body_mut().frame()).await);
    drop(answer);
    let all = s.events("watch", 3).await;
    assert_eq!(stages(&all), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(all[2]["responseStatus"]["code"], 200);
}

/// A secret in a list that is compressed, in another form, and without managedFields.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_recorded_whatever_form_the_client_wants() {
    let s = Audited::start("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: RequestResponse}]}").await;
    let big = "x".repeat(200 * 1024);
    let map = j!({"metadata": {"name": "m"}, "data": {"k": big}});
    s.call("make", s.server.admin(), Method::POST, "/api/v1/namespaces/default/configmaps", Some(map)).await;
    for (id, accept) in [("gzip", "application/json"), ("proto", "application/vnd.kubernetes.protobuf")] {
        let headers = [("audit-id", id), ("accept", accept), ("accept-encoding", "gzip")];
        let path = "/api/v1/namespaces/default/configmaps/m";
        let answer = s.server.send(s.server.admin(), Method::GET, path, &headers, None).await;
        assert_eq!(answer.status(), 200);
        let event = &s.events(id, 2).await[1];
        assert_eq!(event["responseObject"]["data"]["k"].as_str().map(str::len), Some(big.len()), "{id}");
        assert!(event["responseObject"]["metadata"].get("managedFields").is_some(), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_nothing_is_recorded() {
    let s = Server::start().await;
    let (_, metrics) = s.call(s.admin(), "GET", "/metrics", None).await;
    assert!(!metrics.as_str().unwrap().contains("audit"), "{metrics}");
}
