//! What the scheduler and the controllers make of simulated nodes: Deployments bound, run and removed.

use crate::target::{Connection, Lines, Target};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Fake {
    #[command(flatten)]
    target: Target,
    /// Replicas of the Deployment
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Make this many Deployments of `--pods` replicas, wait until they run, and leave them
    #[arg(long)]
    keep: Option<usize>,
}

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
const NODES: &str = "/api/v1/nodes";
const PATIENCE: Duration = Duration::from_secs(300);

/// When the last of the pods got there.
#[derive(Default)]
struct Reached {
    bound: f64,
    running: f64,
}

struct Session<'a> {
    target: &'a Target,
    tls: tokio_rustls::TlsConnector,
    connection: Connection,
}

impl Fake {
    pub(crate) async fn run(self) -> anyhow::Result<Value> {
        let tls = self.target.connector()?;
        let connection = self.target.connect(&tls).await?;
        let mut session = Session { target: &self.target, tls, connection };
        session.make_namespace().await?;
        if let Some(deployments) = self.keep {
            let events = session.watch(PODS).await?;
            for number in 0..deployments {
                session.deploy(&format!("kept-{number}"), self.pods).await?;
            }
            let reached = follow(events, deployments * self.pods, Instant::now()).await?;
            return Ok(json!({"running_s": reached.running}));
        }
        let events = session.watch(PODS).await?;
        let begun = Instant::now();
        session.deploy("many", self.pods).await?;
        let deployed = follow(events, self.pods, begun).await?;
        let gone = session.remove_namespace().await?;

        // Pods that wait for nodes show what the scheduler does alone.
        session.make_namespace().await?;
        session.cordon(true).await?;
        let events = session.watch(PODS).await?;
        session.deploy("waiting", self.pods).await?;
        session.until_refused(self.pods).await?;
        let begun = Instant::now();
        session.cordon(false).await?;
        let scheduled = follow(events, self.pods, begun).await?;
        session.remove_namespace().await?;
        #[allow(clippy::cast_precision_loss)]
        let rate = self.pods as f64 / scheduled.bound;
        Ok(json!({"bound_s": deployed.bound, "running_s": deployed.running, "gone_s": gone,
            "scheduled_per_second": rate.round(), "scheduled_s": scheduled.bound}))
    }
}

impl Session<'_> {
    async fn make_namespace(&mut self) -> anyhow::Result<()> {
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        self.connection.json(Method::POST, "/api/v1/namespaces", &namespace).await?;
        // Pods need the account that a controller makes.
        let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
        let begun = Instant::now();
        while self.connection.json(Method::GET, &account, &Value::Null).await.is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("the namespace has no default service account");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Seconds from the request until the namespace is no more.
    async fn remove_namespace(&mut self) -> anyhow::Result<f64> {
        let mut events = self.watch("/api/v1/namespaces").await?;
        let begun = Instant::now();
        self.connection.json(Method::DELETE, &format!("/api/v1/namespaces/{NAMESPACE}"), &Value::Null).await?;
        let gone = async {
            while let Some(event) = events.next().await? {
                if event["type"] == "DELETED" && event["object"]["metadata"]["name"] == NAMESPACE {
                    return Ok(seconds(begun));
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(PATIENCE, gone).await.context("the namespace is still there")?
    }

    async fn deploy(&mut self, name: &str, replicas: usize) -> anyhow::Result<()> {
        let labels = json!({"app": name});
        let container = json!({"name": "c", "image": "bench.invalid/pod:1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
        let deployment = json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
        self.connection.json(Method::POST, &path, &deployment).await?;
        Ok(())
    }

    async fn watch(&mut self, path: &str) -> anyhow::Result<Lines> {
        let list = self.connection.json(Method::GET, &format!("{path}?limit=1"), &Value::Null).await?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("the list has no revision")?;
        let path = format!("{path}?watch=true&resourceVersion={revision}");
        let mut watching = self.target.connect(&self.tls).await?;
        Ok(Lines::new(watching.send(Method::GET, &path, "application/json", Bytes::new()).await?))
    }

    async fn cordon(&mut self, cordoned: bool) -> anyhow::Result<()> {
        let list = self.connection.json(Method::GET, NODES, &Value::Null).await?;
        let patch = json!({"spec": {"unschedulable": cordoned, "taints": null}});
        for node in list["items"].as_array().into_iter().flatten() {
            let path = format!("{NODES}/{}", node["metadata"]["name"].as_str().unwrap_or_default());
            let body = serde_json::to_vec(&patch)?.into();
            let answer = self.connection.send(Method::PATCH, &path, "application/merge-patch+json", body).await?;
            let code = answer.status();
            http_body_util::BodyExt::collect(answer.into_body()).await?;
            if !code.is_success() {
                bail!("{path}: {code}");
            }
        }
        Ok(())
    }

    /// Waits until all pods are known to fit nowhere.
    async fn until_refused(&mut self, pods: usize) -> anyhow::Result<()> {
        let refused = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "False"))
        };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let list = self.connection.json(Method::GET, PODS, &Value::Null).await?;
            if list["items"].as_array().is_some_and(|all| all.iter().filter(|pod| refused(pod)).count() == pods) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("the pods are not refused")
    }
}

/// Follows pods until all are bound and run.
async fn follow(mut events: Lines, pods: usize, begun: Instant) -> anyhow::Result<Reached> {
    let (mut bound, mut running) = (HashSet::new(), HashSet::new());
    let mut reached = Reached::default();
    let all = async {
        while running.len() < pods {
            let Some(event) = events.next().await? else { bail!("the watch ended") };
            let pod = &event["object"];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if pod["spec"]["nodeName"].is_string() && bound.insert(name.to_owned()) {
                reached.bound = seconds(begun);
            }
            if pod["status"]["phase"] == "Running" && running.insert(name.to_owned()) {
                reached.running = seconds(begun);
            }
        }
        Ok(reached)
    };
    tokio::time::timeout(PATIENCE, all).await.context("the pods did not get there in time")?
}

fn seconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e3).round() / 1e3
}
