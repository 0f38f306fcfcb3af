//! The way in without sockets.

use crate::harness::{Server, config_map};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use mini_apiserver::UserInfo;

#[tokio::test]
async fn kubes_client_works_over_the_local_service() {
    let s = Server::start().await;
    let client = kube::Client::new(s.api.local(UserInfo::new("admin", &["system:masters"])), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut watch = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let object: ConfigMap = serde_json::from_value(config_map("a")).unwrap();
    let made = maps.create(&PostParams::default(), &object).await.unwrap();
    assert!(made.metadata.uid.is_some());
    // From anywhere: nothing is there, and the bookmark says so.
    assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Bookmark(_))));
    match watch.try_next().await.unwrap() {
        Some(WatchEvent::Added(added)) => assert_eq!(added, made),
        other => panic!("{other:?}"),
    }
    assert_eq!(maps.list(&kube::api::ListParams::default()).await.unwrap().items.len(), 1);
    s.stop().await;
}

#[tokio::test]
async fn being_inside_gives_no_rights() {
    let s = Server::start().await;
    let client = kube::Client::new(s.api.local(UserInfo::new("nobody", &[])), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    match maps.get("a").await.unwrap_err() {
        kube::Error::Api(status) => {
            assert_eq!(status.code, 403);
            let want = "configmaps \"a\" is forbidden: User \"nobody\" cannot get resource \"configmaps\" in API group \"\" \
                        in the namespace \"default\"";
            assert!(status.message.starts_with(want), "{}", status.message);
        }
        other => panic!("{other:?}"),
    }
    s.stop().await;
}
