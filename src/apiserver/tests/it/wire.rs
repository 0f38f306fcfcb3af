//! TLS, credentials, and the end.

use crate::harness::{CONFIG_MAPS, Server, config_map};

/// A client with this bearer token, or none.
fn client(s: &Server, token: Option<&str>) -> kube::Client {
    let uri = format!("https://{}", s.address).parse().unwrap();
    let mut config = kube::Config::new(uri);
    config.accept_invalid_certs = true;
    config.auth_info.token = token.map(|t| t.to_owned().into());
    kube::Client::try_from(config).unwrap()
}

async fn code(client: &kube::Client, path: &str) -> u16 {
    let request = http::Request::get(path).body(Vec::new().into()).unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn wrong_credentials_are_401_none_are_anonymous() {
    let s = Server::start().await;
    let wrong = client(&s, Some("wrong"));
    assert_eq!(code(&wrong, "/version").await, 401);
    let anonymous = client(&s, None);
    for path in ["/version", "/healthz", "/readyz", "/livez"] {
        assert_eq!(code(&anonymous, path).await, 200, "{path}");
    }
    for path in [CONFIG_MAPS, "/metrics", "/nothing", "/api/v1/nodes"] {
        assert_eq!(code(&anonymous, path).await, 403, "{path}");
    }
    s.stop().await;
}

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a")).await.body;
    let Server { store, cancel, task, dir, .. } = s;
    cancel.cancel();
    task.await.unwrap();
    store.close().await;
    drop(store);
    let store = mini_store::Store::open(mini_store::Config::new(dir.path().join("store.db"))).unwrap();
    let entry = store.snapshot().get("/registry/configmaps/default/a").unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&entry.bytes).unwrap(), made);
    store.close().await;
}
