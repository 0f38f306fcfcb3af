//! Pods by way of the API: from the create to the Ready condition as a watcher sees it.

use crate::target::{Connection, Lines, Target};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Pods {
    #[command(flatten)]
    target: Target,
    #[arg(long)]
    image: String,
    /// One after the other
    #[arg(long, default_value_t = 10)]
    single: usize,
    /// All at once
    #[arg(long, default_value_t = 50)]
    burst: usize,
    /// Leave this many quiet pods running and do nothing else
    #[arg(long)]
    keep: Option<usize>,
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(180);

impl Pods {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let tls = self.target.connector()?;
        let mut connection = self.target.connect(&tls).await?;
        let list = connection.json(Method::GET, &format!("{PODS}?limit=1"), &Value::Null).await?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("the list has no revision")?;
        let mut watching = self.target.connect(&tls).await?;
        let path = format!("{PODS}?watch=true&resourceVersion={revision}&labelSelector=run%3Dmini-bench");
        let answer = watching.send(Method::GET, &path, "application/json", Bytes::new()).await?;
        let mut events = Lines::new(answer);
        if let Some(keep) = self.keep {
            let names: Vec<String> = (0..keep).map(|n| format!("quiet-{n}")).collect();
            self.start(&mut connection, &mut events, &names).await?;
            return Ok(json!({"kept": keep}));
        }
        let (mut ready, mut gone) = (Vec::new(), Vec::new());
        for n in 0..self.single {
            let names = [format!("single-{n}")];
            ready.push(self.start(&mut connection, &mut events, &names).await?.as_secs_f64() * 1e3);
            gone.push(delete(&mut connection, &mut events, &names).await?.as_secs_f64() * 1e3);
        }
        let names: Vec<String> = (0..self.burst).map(|n| format!("burst-{n}")).collect();
        let burst_ready = self.start(&mut connection, &mut events, &names).await?;
        let burst_gone = delete(&mut connection, &mut events, &names).await?;
        Ok(json!({
            "ready": crate::percentiles(ready),
            "gone": crate::percentiles(gone),
            "burst": {"n": self.burst, "ready_s": seconds(burst_ready), "gone_s": seconds(burst_gone)},
        }))
    }

    /// Creates and waits until all are Ready.
    async fn start(
        &self,
        connection: &mut Connection,
        events: &mut Lines,
        names: &[String],
    ) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        for name in names {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"run": "mini-bench"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "c", "image": self.image, "command": ["/bin/sleep", "1000000"], "imagePullPolicy": "Never"}],
                },
            });
            connection.json(Method::POST, PODS, &pod).await?;
        }
        wait(events, names, |event| {
            let conditions = event["object"]["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        })
        .await?;
        Ok(begun.elapsed())
    }
}

async fn delete(connection: &mut Connection, events: &mut Lines, names: &[String]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    for name in names {
        connection.json(Method::DELETE, &format!("{PODS}/{name}"), &Value::Null).await?;
    }
    wait(events, names, |event| event["type"] == "DELETED").await?;
    Ok(begun.elapsed())
}

async fn wait(events: &mut Lines, names: &[String], done: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let mut waiting: HashMap<&str, ()> = names.iter().map(|name| (name.as_str(), ())).collect();
    let all = async {
        while !waiting.is_empty() {
            let Some(event) = events.next().await? else { bail!("the watch ended") };
            if done(&event)
                && let Some(name) = event["object"]["metadata"]["name"].as_str()
            {
                waiting.remove(name);
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await.context("the pods did not get there in time")?
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}
