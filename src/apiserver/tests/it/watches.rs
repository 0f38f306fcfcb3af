//! watch.

use crate::harness::{CONFIG_MAPS, JSON, PODS, Server, config_map, pod};
use mini_apiserver::UserInfo;
use serde_json::{Value, json};
use std::time::Duration;

fn labelled(name: &str, label: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({"l": label});
    object
}

#[tokio::test]
async fn a_watch_goes_on_from_its_revision() {
    let s = Server::start().await;
    let first = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    s.post(CONFIG_MAPS, &config_map("b")).await;
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
    assert_eq!(watch.names(1).await, ["ADDED b"]);
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let gone = s.get(&format!("{CONFIG_MAPS}/a")).await.body;
    s.delete(&format!("{CONFIG_MAPS}/a"), &Value::Null).await;
    assert_eq!(watch.names(1).await, ["MODIFIED a"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(object["data"], gone["data"]);
    assert_ne!(object["metadata"]["resourceVersion"], gone["metadata"]["resourceVersion"], "a deletion is a revision");
    s.stop().await;
}

#[tokio::test]
async fn without_a_revision_it_starts_with_what_is_there() {
    let s = Server::start().await;
    for name in ["a", "b"] {
        s.post(CONFIG_MAPS, &config_map(name)).await;
    }
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(watch.names(2).await, ["ADDED a", "ADDED b"]);
    }
    let mut one = s.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db")).await;
    s.post(CONFIG_MAPS, &config_map("bb")).await;
    s.patch(&format!("{CONFIG_MAPS}/b"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(one.names(2).await, ["ADDED b", "MODIFIED b"]);
    s.stop().await;
}

#[tokio::test]
async fn leaving_the_selection_is_a_deletion() {
    let s = Server::start().await;
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=l%3Dx")).await;
    s.post(CONFIG_MAPS, &labelled("a", "x")).await;
    s.post(CONFIG_MAPS, &labelled("other", "y")).await;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let left = s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"metadata": {"labels": {"l": "y"}}})).await.body;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"metadata": {"labels": {"l": "x"}}})).await;
    assert_eq!(watch.names(2).await, ["ADDED a", "MODIFIED a"]);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!(kind, "DELETED");
    assert_eq!(object["metadata"]["labels"]["l"], "x", "the state from before");
    assert_eq!(object["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"], "at the revision of now");
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    s.stop().await;
}

#[tokio::test]
async fn leaving_a_field_selection_is_a_deletion_too() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let mut watch = s.watch(&format!("{PODS}?watch=1&fieldSelector=status.phase%3DPending")).await;
    let phase =
        async |phase: &str| s.patch(&format!("{PODS}/p/status"), &json!({"status": {"phase": phase}})).await.body;
    assert_eq!(watch.names(1).await, ["ADDED p"]);
    let left = phase("Running").await;
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["status"]["phase"]), ("DELETED", &json!("Pending")));
    assert_eq!(object["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    phase("Failed").await;
    phase("Pending").await;
    assert_eq!(watch.names(1).await, ["ADDED p"]);
    s.stop().await;
}

const END: &str = "/metadata/annotations/k8s.io~1initial-events-end";

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let asked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let revision = s.store.revision();
    for query in [
        asked.to_owned(),
        format!("{asked}&resourceVersion=0"),
        format!("{asked}&resourceVersion={revision}"),
        // Who may be sent bookmarks and begins anywhere gets it without asking.
        "allowWatchBookmarks=true".to_owned(),
        "allowWatchBookmarks=true&resourceVersion=0".to_owned(),
    ] {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&{query}")).await;
        assert_eq!(watch.names(1).await, ["ADDED a"], "{query}");
        let (kind, object) = watch.next().await.unwrap();
        let metadata =
            json!({"resourceVersion": revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
        assert_eq!(kind, "BOOKMARK", "{query}");
        assert_eq!(object, json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata}), "{query}");
    }
    let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&{asked}")).await;
    s.post(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(watch.names(3).await, ["ADDED a", "BOOKMARK ", "ADDED b"]);
    s.stop().await;
}

#[tokio::test]
async fn an_end_of_the_initial_events_is_not_told_to_who_takes_no_bookmarks() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    for query in ["sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "resourceVersion=0"] {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&{query}")).await;
        assert_eq!(watch.names(1).await, ["ADDED a"]);
        let name = format!("b{}", query.len());
        s.post(CONFIG_MAPS, &config_map(&name)).await;
        assert_eq!(watch.names(1).await, [format!("ADDED {name}")]);
        s.delete(&format!("{CONFIG_MAPS}/{name}"), &Value::Null).await;
    }
    s.stop().await;
}

#[tokio::test]
async fn without_initial_events_only_what_comes_is_sent() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a")).await;
    let none = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    for (i, version) in ["", "&resourceVersion=0"].into_iter().enumerate() {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?{none}{version}")).await;
        s.post(CONFIG_MAPS, &config_map(&format!("b{i}"))).await;
        assert_eq!(watch.names(1).await, [format!("ADDED b{i}")]);
    }
    s.stop().await;
}

#[tokio::test]
async fn what_a_watch_cannot_be_asked_is_told_in_upstreams_words() {
    let s = Server::start().await;
    let requires =
        "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let unless = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
    let unsupported =
        |rule: &str| format!("resourceVersionMatch: Unsupported value: \"{rule}\": supported values: \"NotOlderThan\"");
    let going_on = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
    for (query, why) in [
        ("sendInitialEvents=true", requires.to_owned()),
        ("sendInitialEvents=false", requires.to_owned()),
        ("sendInitialEvents=true&resourceVersionMatch=Exact", format!("[{requires}, {}]", unsupported("Exact"))),
        ("resourceVersionMatch=NotOlderThan", unless.to_owned()),
        ("resourceVersionMatch=Exact&resourceVersion=5", format!("[{unless}, {}]", unsupported("Exact"))),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", going_on.to_owned()),
    ] {
        let answer = s.get(&format!("{CONFIG_MAPS}?watch=1&{query}")).await;
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {why}");
        assert_eq!(answer.failure(), (422, "Invalid", message.as_str()), "{query}");
    }
    let bad = s.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=x")).await;
    let message = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    assert_eq!(bad.failure(), (500, "", message));
    s.stop().await;
}

#[tokio::test]
async fn a_revision_that_is_too_old_is_an_error_event_and_the_end() {
    let s = Server::keeping(Duration::from_millis(100)).await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let old = made["metadata"]["resourceVersion"].as_str().unwrap();
    s.post(CONFIG_MAPS, &config_map("b")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    s.post(CONFIG_MAPS, &config_map("c")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for accept in [JSON, table] {
        let mut watch = s.watch_as(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={old}"), accept).await;
        let (kind, status) = watch.next().await.unwrap();
        assert_eq!(kind, "ERROR");
        assert_eq!(
            (&status["kind"], &status["code"], &status["reason"]),
            (&json!("Status"), &json!(410), &json!("Expired"))
        );
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("too old resource version: {old} (")), "{message}");
        assert_eq!(watch.next().await, None);
    }
    s.stop().await;
}

#[tokio::test]
async fn a_revision_that_never_was_is_an_error_event() {
    let s = Server::start().await;
    let asked = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&";
    for (query, code, reason) in [("", 410, "Expired"), (asked, 504, "Timeout")] {
        let mut watch = s.watch(&format!("{CONFIG_MAPS}?watch=1&{query}resourceVersion=99999999")).await;
        let (kind, status) = watch.next().await.unwrap();
        assert_eq!((kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(code), &json!(reason)));
        assert_eq!(watch.next().await, None);
    }
    s.stop().await;
}

#[tokio::test]
async fn all_watchers_see_the_same_order() {
    let s = Server::start().await;
    let start = s.store.revision();
    let from_start = format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}");
    let mut watches = Vec::new();
    let writes = async |worker: usize| {
        for i in 0..12 {
            let name = format!("w{worker}-{}", i % 3);
            let path = format!("{CONFIG_MAPS}/{name}");
            match i / 3 {
                0 => s.post(CONFIG_MAPS, &config_map(&name)).await.code,
                1 | 2 => s.patch(&path, &json!({"data": {"k": i.to_string()}})).await.code,
                _ => s.delete(&path, &Value::Null).await.code,
            };
        }
    };
    watches.push(s.watch(&from_start).await);
    let (a, b, c, later) = tokio::join!(writes(1), writes(2), writes(3), async {
        let mut later = Vec::new();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            later.push(s.watch(&from_start).await);
        }
        later
    });
    let ((), (), ()) = (a, b, c);
    watches.extend(later);
    watches.push(s.watch(&from_start).await);
    let mut orders = Vec::new();
    for watch in &mut watches {
        let mut order = Vec::new();
        for _ in 0..36 {
            let (kind, object) = watch.next().await.unwrap();
            let metadata = &object["metadata"];
            order.push((
                kind,
                metadata["name"].clone(),
                metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap(),
            ));
        }
        orders.push(order);
    }
    assert!(orders[0].is_sorted_by_key(|(_, _, revision)| *revision));
    for order in &orders[1..] {
        assert_eq!(order, &orders[0]);
    }
    s.stop().await;
}

#[tokio::test]
async fn before_its_time_is_up_a_watch_is_told_how_far_it_has_come() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("watch=1&timeoutSeconds=1&resourceVersion={revision}");
    let mut with = s.watch(&format!("{CONFIG_MAPS}?{query}&allowWatchBookmarks=true")).await;
    let mut without = s.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    // Others' objects are none of this watch's events.
    s.post(PODS, &pod("p")).await;
    let (kind, object) = with.next().await.unwrap();
    let metadata = json!({"resourceVersion": s.store.revision().to_string()});
    assert_eq!((kind.as_str(), &object["metadata"]), ("BOOKMARK", &metadata));
    assert_eq!(object.pointer(END), None);
    assert_eq!((with.next().await, without.next().await), (None, None));
    s.stop().await;
}

/// The clock is stopped and goes on by itself where nothing else is to do.
#[tokio::test]
async fn bookmarks_come_every_minute_while_others_are_written() {
    use http_body_util::BodyExt;
    let s = Server::start().await;
    let revision = s.store.revision();
    let admin = s.api.local(UserInfo::new("admin", &["system:masters"]));
    let query = format!("watch=1&allowWatchBookmarks=true&resourceVersion={revision}");
    let request = http::Request::get(format!("{CONFIG_MAPS}?{query}"));
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let mut body = tower::ServiceExt::oneshot(admin, request).await.unwrap().into_body();
    for name in ["p", "q"] {
        s.post(PODS, &pod(name)).await;
        let newest = s.store.revision().to_string();
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let waited = begun.elapsed().as_secs();
        tokio::time::resume();
        let event: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["resourceVersion"]),
            (&json!("BOOKMARK"), &json!(newest))
        );
        assert!((50..=61).contains(&waited), "{waited} s");
    }
    s.stop().await;
}

#[tokio::test]
async fn bookmarks_have_the_form_of_the_watch() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let path = format!("{PODS}?watch=1&allowWatchBookmarks=true");
    let second = async |query: &str, accept: &str| {
        let mut watch = s.watch_as(&format!("{path}{query}"), accept).await;
        watch.next().await.unwrap();
        let (kind, object) = watch.next().await.unwrap();
        assert_eq!(kind, "BOOKMARK");
        object
    };
    let partial = second("", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!((&partial["kind"], partial.pointer(END)), (&json!("PartialObjectMetadata"), Some(&json!("true"))));
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    // Even a row without its object tells where the initial events end.
    for (query, kind) in [
        ("", "PartialObjectMetadata"),
        ("&includeObject=None", "PartialObjectMetadata"),
        ("&includeObject=Object", "Pod"),
    ] {
        let table = second(query, table).await;
        let object = &table["rows"][0]["object"];
        assert_eq!((&object["kind"], object.pointer(END)), (&json!(kind), Some(&json!("true"))), "{query}");
        assert_eq!(table["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"], "{query}");
    }
    s.stop().await;
}

#[tokio::test]
async fn the_media_type_says_how_events_are_framed() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (accept, want) in [
        ("", "application/json"),
        ("application/json;stream=watch", "application/json"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", "application/json"),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json"),
        (protobuf, "application/vnd.kubernetes.protobuf;stream=watch"),
        ("application/vnd.kubernetes.protobuf;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"),
    ] {
        let request = http::Request::get(format!("{PODS}?watch=1")).header("accept", accept).body(Vec::new().into());
        let response = s.client.send(request.unwrap()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
            (200, want),
            "{accept}"
        );
    }
    s.stop().await;
}

#[tokio::test]
async fn an_end_comes_with_the_timeout_and_with_the_drain() {
    let s = Server::start().await;
    let mut short = s.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion=1")).await;
    let started = std::time::Instant::now();
    while short.next().await.is_some() {}
    assert!(started.elapsed().as_millis() >= 900);
    let mut long = s.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    s.cancel.cancel();
    assert_eq!(long.next().await, None);
    s.stop().await;
}

#[tokio::test]
async fn tables_name_their_columns_once() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await;
    let mut watch = s.watch_as(&format!("{PODS}?watch=1"), "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let (_, first) = watch.next().await.unwrap();
    assert_eq!(first["kind"], "Table");
    assert!(!first["columnDefinitions"].as_array().unwrap().is_empty());
    s.patch(&format!("{PODS}/p"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let (kind, second) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), second["columnDefinitions"].as_array().unwrap().len()), ("MODIFIED", 0));
    assert_eq!(second["rows"][0]["object"]["metadata"]["labels"]["a"], "b");
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut watch = s.watch_as(&format!("{PODS}?watch=1"), accept).await;
    let (_, object) = watch.next().await.unwrap();
    assert_eq!((&object["kind"], object.get("spec")), (&json!("PartialObjectMetadata"), None));
    s.stop().await;
}

#[tokio::test]
async fn the_old_paths_of_watches_still_lead_to_them() {
    let s = Server::start().await;
    for name in ["a", "ab"] {
        s.post(CONFIG_MAPS, &config_map(name)).await;
    }
    let path = CONFIG_MAPS.replace("/api/v1/", "/api/v1/watch/");
    for all in
        [path.as_str(), "/api/v1/watch/configmaps", "/api/v1/watch/namespaces/default/configmaps?labelSelector=!l"]
    {
        assert_eq!(s.watch(all).await.names(2).await, ["ADDED a", "ADDED ab"], "{all}");
    }
    assert_eq!(s.watch("/api/v1/watch/namespaces/default").await.names(1).await, ["ADDED default"]);
    let mut watch = s.watch(&format!("{path}/a")).await;
    assert_eq!(watch.names(1).await, ["ADDED a"]);
    s.post(CONFIG_MAPS, &config_map("ac")).await;
    s.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(watch.names(1).await, ["MODIFIED a"]);
    s.stop().await;
}
