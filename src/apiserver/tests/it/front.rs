//! What clients find around the API: headers, health, components, metrics.

use crate::harness::{CONFIG_MAPS, Server, config_map};
use serde_json::{Value, json};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn answers_have_a_name_and_are_nobody_elses() {
    let s = Server::start().await;
    let made = s.get("/version").await;
    let id = made.headers["audit-id"].to_str().unwrap();
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
    assert_eq!(made.headers["cache-control"], "no-cache, private");
    let request = http::Request::get("/version").header("audit-id", "mine").body(Vec::new().into()).unwrap();
    assert_eq!(s.send(request).await.headers["audit-id"], "mine");
    s.stop().await;
}

#[tokio::test]
async fn health_is_told_in_upstreams_words() {
    let s = Server::start().await;
    for endpoint in ["healthz", "livez", "readyz"] {
        let plain = s.get(&format!("/{endpoint}")).await;
        assert_eq!((plain.code, text(&plain.body)), (200, "ok"));
        assert_eq!(plain.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(plain.headers["x-content-type-options"], "nosniff");
        let verbose = s.get(&format!("/{endpoint}?verbose")).await.body;
        let verbose = text(&verbose);
        assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{verbose}");
        assert!(verbose.ends_with(&format!("\n{endpoint} check passed\n")), "{verbose}");
        assert_eq!(verbose.contains("[+]shutdown ok\n"), endpoint == "readyz", "{verbose}");
        for check in ["ping", "etcd", "poststarthook/rbac/bootstrap-roles", "autoregister-completion"] {
            assert!(verbose.contains(&format!("[+]{check} ok\n")), "{verbose}");
            let one = s.get(&format!("/{endpoint}/{check}")).await;
            assert_eq!((one.code, text(&one.body)), (200, "ok"), "{endpoint}/{check}");
        }
        assert_eq!(s.get(&format!("/{endpoint}/nothing")).await.code, 404);
    }
    let excluded = s.get("/readyz?verbose&exclude=etcd&exclude=nothing").await.body;
    let excluded = text(&excluded);
    assert!(excluded.contains("[+]etcd excluded: ok\n"), "{excluded}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"nothing\"\nreadyz check passed\n";
    assert!(excluded.ends_with(warning), "{excluded}");
    s.stop().await;
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_without_the_reason() {
    let s = Server::start().await;
    s.store.close().await;
    let all = s.get("/readyz").await;
    assert_eq!(all.code, 500);
    let said = text(&all.body);
    assert!(said.contains("[-]etcd failed: reason withheld\n") && said.ends_with("readyz check failed\n"), "{said}");
    assert_eq!(s.get("/readyz?exclude=etcd&exclude=etcd-readiness").await.code, 200);
    let one = s.get("/readyz/etcd").await;
    assert_eq!((one.code, text(&one.body)), (500, "internal server error: the store does not take writes\n"));
    let cs = s.get("/api/v1/componentstatuses/etcd-0").await.body;
    assert_eq!(cs["conditions"][0]["status"], "False", "{cs}");
    s.stop().await;
}

#[tokio::test]
async fn components_are_asked_when_somebody_asks() {
    let s = Server::start().await;
    let parts = || vec![("scheduler".to_owned(), None), ("controller-manager".to_owned(), Some("asleep".to_owned()))];
    s.api.observe(std::sync::Arc::new(parts), std::sync::Arc::new(|| "more_total 1\n".to_owned()));
    let list = s.get("/api/v1/componentstatuses").await;
    assert_eq!(list.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    assert_eq!((&list.body["kind"], &list.body["apiVersion"]), (&json!("ComponentStatusList"), &json!("v1")));
    let table = s.get_as("/api/v1/componentstatuses", "application/json;as=Table;v=v1;g=meta.k8s.io").await.body;
    let cells: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|row| &row["cells"]).collect();
    assert_eq!(
        cells,
        [
            &json!(["scheduler", "Healthy", "ok", ""]),
            &json!(["controller-manager", "Unhealthy", "asleep", ""]),
            &json!(["etcd-0", "Healthy", "ok", ""])
        ]
    );
    let one = s.get("/api/v1/componentstatuses/scheduler").await.body;
    assert_eq!(one["conditions"], json!([{"type": "Healthy", "status": "True", "message": "ok"}]));
    let none = s.get("/api/v1/componentstatuses/nothing").await;
    assert_eq!((none.code, &none.body["message"]), (404, &json!("componentstatuses \"nothing\" not found")));
    assert!(text(&s.get("/metrics").await.body).contains("\nmore_total 1\n"));
    s.stop().await;
}

/// The value of the sample that has this name and these labels among its own.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    metrics.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (own, value) = rest.rsplit_once(' ')?;
        (matches!(own.chars().next(), None | Some('{')) && labels.iter().all(|l| own.contains(l)))
            .then(|| value.parse().unwrap())
    })
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let s = Server::start().await;
    assert_eq!(s.post(CONFIG_MAPS, &config_map("a")).await.code, 201);
    let watch = s.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let answer = s.get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let metrics = text(&answer.body);
    let made = ["verb=\"POST\"", "resource=\"configmaps\"", "version=\"v1\"", "scope=\"resource\"", "dry_run=\"\""];
    assert_eq!(value(metrics, "apiserver_request_total", &[&made[..], &["code=\"201\""]].concat()), Some(1.0));
    assert_eq!(value(metrics, "apiserver_request_duration_seconds_count", &made), Some(1.0));
    let all = [&made[..], &["le=\"+Inf\""]].concat();
    assert_eq!(value(metrics, "apiserver_request_duration_seconds_bucket", &all), Some(1.0));
    let watching = ["verb=\"WATCH\"", "resource=\"configmaps\""];
    assert_eq!(value(metrics, "apiserver_longrunning_requests", &watching), Some(1.0));
    // One of the test and kube-public/cluster-info.
    assert_eq!(value(metrics, "apiserver_storage_objects", &["resource=\"configmaps\""]), Some(2.0));
    assert_eq!(value(metrics, "apiserver_resource_objects", &["group=\"\"", "resource=\"configmaps\""]), Some(2.0));
    assert_eq!(value(metrics, "apiserver_current_inflight_requests", &["request_kind=\"mutating\""]), Some(0.0));
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(value(metrics, name, &[]).is_some(), "{name}");
    }
    parses(metrics);
    drop(watch);
    for _ in 0..100 {
        let metrics = s.get("/metrics").await.body;
        if value(text(&metrics), "apiserver_longrunning_requests", &watching) == Some(0.0) {
            let checks = s.get("/metrics/slis").await.body;
            parses(text(&checks));
            assert_eq!(value(text(&checks), "kubernetes_healthcheck", &["name=\"ping\"", "type=\"livez\""]), Some(1.0));
            let passed = ["name=\"etcd\"", "status=\"success\"", "type=\"readyz\""];
            assert_eq!(value(text(&checks), "kubernetes_healthchecks_total", &passed), Some(1.0));
            s.stop().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a watch that ended is still counted");
}

/// Every sample belongs to the family announced before it, every family is announced once, and no sample comes twice.
fn parses(metrics: &str) {
    let mut families = std::collections::BTreeSet::new();
    let mut samples = std::collections::BTreeSet::new();
    let (mut family, mut histogram) = ("", false);
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(families.insert(name), "{name} twice");
            (family, histogram) = (name, kind == "histogram");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series), "{series} twice");
            let name = series.split('{').next().unwrap();
            let own =
                |name: &str| ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(family));
            assert!(if histogram { own(name) } else { name == family }, "{line}");
        }
    }
}

#[tokio::test]
async fn logs_are_not_served() {
    let s = Server::start().await;
    for path in ["/logs", "/logs/", "/logs/syslog"] {
        assert_eq!(s.get(path).await.code, 404, "{path}");
    }
    s.stop().await;
}
