//! list: chunks, selectors and revisions.

use crate::harness::{CONFIG_MAPS, Server, config_map};
use serde_json::{Value, json};
use std::time::Duration;

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

async fn with_maps(count: usize) -> Server {
    let s = Server::start().await;
    for i in 0..count {
        let mut object = config_map(&format!("m{i:02}"));
        object["metadata"]["labels"] = json!({"even": (i % 2 == 0).to_string()});
        assert_eq!(s.post(CONFIG_MAPS, &object).await.code, 201);
    }
    s
}

#[tokio::test]
async fn chunks_are_of_one_revision() {
    let s = with_maps(10).await;
    let first = s.get(&format!("{CONFIG_MAPS}?limit=4")).await.body;
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(names(&first), ["m00", "m01", "m02", "m03"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    s.delete(&format!("{CONFIG_MAPS}/m05"), &Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.body;
    assert_eq!(names(&second), ["m04", "m05", "m06", "m07"], "what went after the first chunk is still there");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 2);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.body;
    assert_eq!(names(&last), ["m08", "m09"]);
    assert!(last["metadata"].get("continue").is_none() && last["metadata"].get("remainingItemCount").is_none());
    let odd = s.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dfalse")).await.body;
    assert_eq!(names(&odd), ["m01", "m03"]);
    assert!(odd["metadata"].get("remainingItemCount").is_none(), "nobody has counted what a selector leaves");
    assert_eq!(s.get(&format!("{CONFIG_MAPS}?limit=4&continue=rubbish")).await.code, 400);
    s.stop().await;
}

#[tokio::test]
async fn selectors_select() {
    let s = with_maps(4).await;
    for (query, want) in [
        ("labelSelector=even%3Dtrue", vec!["m00", "m02"]),
        ("labelSelector=even%20notin%20(true)", vec!["m01", "m03"]),
        ("fieldSelector=metadata.name%3Dm01", vec!["m01"]),
        ("fieldSelector=metadata.name!%3Dm01&labelSelector=even", vec!["m00", "m02", "m03"]),
        ("fieldSelector=metadata.name%3Dm01&labelSelector=even%3Dtrue", vec![]),
    ] {
        assert_eq!(names(&s.get(&format!("{CONFIG_MAPS}?{query}")).await.body), want, "{query}");
    }
    for query in ["labelSelector=a%3D%3D%3D", "fieldSelector=data.k%3D1", "limit=x", "resourceVersion=x"] {
        assert_eq!(s.get(&format!("{CONFIG_MAPS}?{query}")).await.code, 400, "{query}");
    }
    s.stop().await;
}

#[tokio::test]
async fn every_page_of_every_size_is_of_one_revision_and_counts_what_is_left() {
    let s = with_maps(17).await;
    for limit in [1, 3, 7, 16, 17, 40] {
        let (mut found, mut token, mut revision) = (Vec::new(), String::new(), None);
        loop {
            let page = s.get(&format!("{CONFIG_MAPS}?limit={limit}&continue={token}")).await.body;
            found.extend(names(&page).into_iter().map(str::to_owned));
            let metadata = &page["metadata"];
            assert_eq!(revision.get_or_insert(metadata["resourceVersion"].clone()), &metadata["resourceVersion"]);
            let left = metadata["remainingItemCount"].as_u64();
            let Some(next) = metadata["continue"].as_str() else {
                assert_eq!(left, None);
                break;
            };
            assert_eq!(left, Some(17 - found.len() as u64), "{limit}");
            token = next.to_owned();
            // What is written meanwhile belongs to no page.
            s.post(CONFIG_MAPS, &config_map(&format!("n{limit}-{}", found.len()))).await;
            s.delete(&format!("{CONFIG_MAPS}/n{limit}-{}", found.len()), &Value::Null).await;
        }
        assert_eq!(found, (0..17).map(|i| format!("m{i:02}")).collect::<Vec<_>>(), "{limit}");
    }
    s.stop().await;
}

#[tokio::test]
async fn pages_of_what_selectors_leave_are_full_and_not_counted() {
    let s = with_maps(11).await;
    for (selector, want) in [
        ("labelSelector=even%3Dtrue", 6),
        ("fieldSelector=metadata.name!%3Dm03", 10),
        ("labelSelector=even%3Dfalse&fieldSelector=metadata.name!%3Dm03", 4),
    ] {
        let (mut found, mut token) = (0, String::new());
        loop {
            let page = s.get(&format!("{CONFIG_MAPS}?{selector}&limit=2&continue={token}")).await.body;
            found += names(&page).len();
            assert!(page["metadata"].get("remainingItemCount").is_none());
            let Some(next) = page["metadata"]["continue"].as_str() else { break };
            assert_eq!(names(&page).len(), 2, "{selector}");
            token = next.to_owned();
        }
        assert_eq!(found, want, "{selector}");
    }
    s.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_answered_with_one_that_goes_on_inconsistently() {
    let s = Server::keeping(Duration::from_millis(200)).await;
    for i in 0..10 {
        assert_eq!(s.post(CONFIG_MAPS, &config_map(&format!("m{i:02}"))).await.code, 201);
    }
    let first = s.get(&format!("{CONFIG_MAPS}?limit=4")).await.body;
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    s.delete(&format!("{CONFIG_MAPS}/m05"), &Value::Null).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    s.post(CONFIG_MAPS, &config_map("m045")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let gone = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await;
    let why = "The provided continue parameter is too old to display a consistent list result. You can start a new \
               list without the continue parameter, or use the continue token in this response to retrieve the \
               remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
               that were created, modified, or deleted between the time the first chunk was returned and now may show \
               up in the list.";
    assert_eq!(gone.failure(), (410, "Expired", why));
    let fresh = gone.body["metadata"]["continue"].as_str().unwrap();
    let second = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={fresh}")).await.body;
    assert_eq!(names(&second), ["m04", "m045", "m06", "m07"], "as it is now");
    assert_ne!(second["metadata"]["resourceVersion"], revision);
    assert_eq!(second["metadata"]["remainingItemCount"], 2);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = s.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.body;
    assert_eq!(
        (names(&last), &last["metadata"]["resourceVersion"]),
        (vec!["m08", "m09"], &second["metadata"]["resourceVersion"])
    );
    // Without a token there is nothing to go on with.
    let exact = s.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(exact.failure(), (410, "Expired", "The resourceVersion for the provided list is too old."));
    assert!(exact.body["metadata"].get("continue").is_none());
    s.stop().await;
}

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>
#[tokio::test]
async fn every_way_to_name_a_revision_is_answered_as_documented() {
    let s = with_maps(3).await;
    let old = s.get(CONFIG_MAPS).await.body["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    s.delete(&format!("{CONFIG_MAPS}/m00"), &Value::Null).await;
    let now = s.store.revision().to_string();
    let (then, today) = (vec!["m00", "m01", "m02"], vec!["m01", "m02"]);
    for (query, want, at) in [
        (String::new(), &today[..], &now),
        ("limit=1".to_owned(), &today[..1], &now),
        ("resourceVersion=0".to_owned(), &today[..], &now),
        ("resourceVersion=0&limit=1".to_owned(), &today[..], &now),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(), &today[..], &now),
        (format!("resourceVersion={old}"), &today[..], &now),
        (format!("resourceVersion={old}&limit=1"), &then[..1], &old),
        (format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan"), &today[..], &now),
        (format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan&limit=1"), &today[..1], &now),
        (format!("resourceVersion={old}&resourceVersionMatch=Exact"), &then[..], &old),
        (format!("resourceVersion={old}&resourceVersionMatch=Exact&limit=2"), &then[..2], &old),
    ] {
        let list = s.get(&format!("{CONFIG_MAPS}?{query}")).await.body;
        assert_eq!(
            (names(&list).as_slice(), list["metadata"]["resourceVersion"].as_str().unwrap()),
            (want, at.as_str()),
            "{query}"
        );
    }
    let token =
        s.get(&format!("{CONFIG_MAPS}?limit=1&resourceVersion={old}")).await.body["metadata"]["continue"].clone();
    let token = token.as_str().unwrap();
    let rest = s.get(&format!("{CONFIG_MAPS}?resourceVersion=0&continue={token}")).await.body;
    assert_eq!(names(&rest), ["m01", "m02"]);
    let invalid = |why: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {why}");
    let bad = |value: &str, why: &str| {
        format!(
            "invalid resource version: resourceVersion: Invalid value: \"{value}\": strconv.ParseUint: parsing \"{value}\": {why}"
        )
    };
    let unless = invalid(
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
    );
    let exact =
        "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
    let going_on = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
    let unknown =
        "resourceVersionMatch: Unsupported value: \"Newer\": supported values: \"Exact\", \"NotOlderThan\", \"\"";
    for (query, code, message) in [
        ("resourceVersionMatch=Exact".to_owned(), 422, unless.clone()),
        ("resourceVersionMatch=NotOlderThan".to_owned(), 422, unless),
        ("resourceVersionMatch=Exact&resourceVersion=0".to_owned(), 422, invalid(exact)),
        ("resourceVersionMatch=Newer&resourceVersion=1".to_owned(), 422, invalid(unknown)),
        (format!("resourceVersionMatch=Exact&resourceVersion={old}&continue={token}"), 422, invalid(going_on)),
        (
            "sendInitialEvents=true".to_owned(),
            422,
            invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ),
        (
            format!("resourceVersion={old}&continue={token}"),
            400,
            "specifying resource version is not allowed when using continue".to_owned(),
        ),
        ("resourceVersion=x".to_owned(), 400, bad("x", "invalid syntax")),
        ("resourceVersion=-1".to_owned(), 400, bad("-1", "invalid syntax")),
        ("resourceVersion=99999999999999999999".to_owned(), 400, bad("99999999999999999999", "value out of range")),
        ("limit=x".to_owned(), 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        (
            "continue=x".to_owned(),
            400,
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 0".to_owned(),
        ),
    ] {
        let answer = s.get(&format!("{CONFIG_MAPS}?{query}")).await;
        let reason = if code == 422 { "Invalid" } else { "BadRequest" };
        assert_eq!(answer.failure(), (code, reason, message.as_str()), "{query}");
    }
    s.stop().await;
}

#[tokio::test]
async fn a_revision_that_is_still_to_come_times_out() {
    let s = with_maps(1).await;
    let one = format!("{CONFIG_MAPS}/m00");
    for path in [CONFIG_MAPS, &one, &format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")] {
        let query = if path.contains('?') { '&' } else { '?' };
        let future = s.once(&format!("{path}{query}resourceVersion=99999999"), "").await;
        let message = format!("Timeout: Too large resource version: 99999999, current: {}", s.store.revision());
        assert_eq!(future.failure(), (504, "Timeout", message.as_str()), "{path}");
        let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                             "retryAfterSeconds": 1});
        assert_eq!(future.body["details"], details);
        assert_eq!(future.headers["retry-after"], "1");
    }
    let revision = s.store.revision();
    for version in ["0".to_owned(), revision.to_string(), "1".to_owned()] {
        assert_eq!(s.get(&format!("{one}?resourceVersion={version}")).await.body["metadata"]["name"], "m00");
    }
    // One that comes while the request waits is good.
    let next = format!("{one}?resourceVersion={}", revision + 1);
    let (read, _) = tokio::join!(s.get(&next), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        s.post(CONFIG_MAPS, &config_map("next")).await
    });
    assert_eq!(read.code, 200);
    let bad = s.get(&format!("{one}?resourceVersion=x")).await;
    let message = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    assert_eq!(bad.failure(), (500, "", message));
    s.stop().await;
}

#[tokio::test]
async fn large_lists_come_whole() {
    let s = Server::start().await;
    for i in 0..20 {
        let mut object = config_map(&format!("big{i:02}"));
        object["data"]["k"] = "x".repeat(30_000).into();
        assert_eq!(s.post(CONFIG_MAPS, &object).await.code, 201);
    }
    let list = s.get(CONFIG_MAPS).await.body;
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    let request = http::Request::get(CONFIG_MAPS).header("accept-encoding", "gzip").body(Vec::new().into()).unwrap();
    let response = s.client.send(request).await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let packed = response.into_body().collect_bytes().await.unwrap();
    let unpacked: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&*packed)).unwrap();
    assert_eq!(unpacked, list);
    s.stop().await;
}
