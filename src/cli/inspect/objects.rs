//! The cluster's objects, as its API has them.

use super::collect::Report;
use super::scrub;
use anyhow::Context as _;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mini_config::Config;
use serde_json::Value;
use std::time::Duration;

/// Kinds with more objects are cut.
const MOST: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(5);

/// Every kind that can be listed, a file each. What cannot be had is noted in the report.
pub(super) async fn collect(report: &mut Report, config: &Config) -> anyhow::Result<()> {
    let client = match client(config).await {
        Ok(client) => client,
        Err(error) => {
            report.missed("cluster", &format!("{error:#}"));
            return Ok(());
        }
    };
    for path in ["/version", "/livez?verbose", "/readyz?verbose"] {
        let name = format!("cluster{}.txt", path.split('?').next().unwrap_or(path));
        match text(&client, path).await {
            Ok(text) => report.text(&name, &text),
            Err(why) => report.missed(&name, &why),
        }
    }
    let mut roots = vec!["/api/v1".to_owned()];
    match json(&client, "/apis").await {
        Ok(groups) => roots.extend(
            groups["groups"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|group| Some(format!("/apis/{}", group["preferredVersion"]["groupVersion"].as_str()?))),
        ),
        Err(why) => report.missed("cluster/apis", &why),
    }
    for root in roots {
        match json(&client, &root).await {
            Ok(kinds) => {
                for kind in kinds["resources"].as_array().into_iter().flatten() {
                    one_kind(report, &client, &root, kind).await;
                }
            }
            Err(why) => report.missed(&root, &why),
        }
    }
    Ok(())
}

async fn one_kind(report: &mut Report, client: &kube::Client, root: &str, kind: &Value) {
    let listed = kind["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"));
    let (Some(plural), Some(kind)) = (kind["name"].as_str().filter(|_| listed), kind["kind"].as_str()) else { return };
    let group = root.trim_start_matches("/apis/").trim_start_matches("/api/").split('/').next().unwrap_or_default();
    let name =
        if root == "/api/v1" { format!("cluster/{plural}.json") } else { format!("cluster/{plural}.{group}.json") };
    match json(client, &format!("{root}/{plural}?limit={MOST}")).await {
        Ok(mut list) => {
            let Some(items) = list["items"].as_array_mut().filter(|items| !items.is_empty()) else { return };
            items.iter_mut().for_each(|item| scrub::object(kind, item));
            report.text(&name, &serde_json::to_string_pretty(&list).unwrap_or_default());
        }
        Err(why) => report.missed(&name, &why),
    }
}

async fn client(config: &Config) -> anyhow::Result<kube::Client> {
    let path = config.admin_kubeconfig();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(Kubeconfig::from_yaml(&text)?, &options).await?;
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

async fn text(client: &kube::Client, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, client.request_text(request)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn json(client: &kube::Client, path: &str) -> Result<Value, String> {
    serde_json::from_str(&text(client, path).await?).map_err(|error| error.to_string())
}
