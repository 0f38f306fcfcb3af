//! Enables, disables and lists addons; `addons/README.md` describes what one is.
//!
//! Knows the cluster only through the API, where it also keeps what it did: one record an addon. Invariants: enabling twice
//! changes nothing more; an addon is worked on by one operation at a time; an operation that was begun goes on when
//! whoever asked for it is gone, and one that a crash ended goes on at the next start.

mod apply;
mod arguments;
mod catalog;
mod cluster;
mod merge;
mod ports;
mod readiness;
mod record;
mod steps;
mod template;
#[cfg(test)]
mod testing;

pub use catalog::core_names;

use arguments::Argument;
use catalog::{Addon, Catalog, Rendered};
use cluster::{Cluster, Id};
use mini_client::{CancellationToken, Client};
use mini_config::admin;
use record::{Record, Stage};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steps::Steps;
use template::{Form, Variables};
use tokio::sync::{mpsc, watch};

/// Why an addon could not be enabled, disabled or listed. The text is a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An addon, or its arguments.
    #[error("{0}")]
    Invalid(String),
    #[error("{what} is there already and belongs to {owner}; remove or rename it, then enable again")]
    Foreign { what: String, owner: String },
    #[error("the API does not serve the kind {kind} of {api_version}")]
    NotServed { api_version: String, kind: String },
    #[error("{what}: {source}")]
    Refused { what: String, source: Box<Error> },
    #[error("{what} is still there after {seconds} s; its finalizers are {finalizers}")]
    NotGone { what: String, finalizers: String, seconds: u64 },
    #[error("{0}")]
    NotWorking(String),
    #[error("the node does not come up; `mini status` says what it waits for")]
    NoNode,
    #[error("{}", said(.0))]
    Api(#[from] kube::Error),
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => format!("the API does not answer: {other}"),
    }
}

/// What manifests may name of the node.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: String,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    pub service_cidr: String,
    pub pod_cidr: String,
    /// Of the Service `default/kubernetes`.
    pub api_address: IpAddr,
    /// On the node.
    pub api_port: u16,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub data_dir: PathBuf,
    pub instance: String,
}

impl Facts {
    fn variables(&self, image: &str) -> Variables {
        let mut variables = Variables::default();
        for (name, value) in [
            ("image", image),
            ("version", &self.version),
            ("clusterDNS", &self.cluster_dns.to_string()),
            ("clusterDomain", &self.cluster_domain),
            ("serviceCIDR", &self.service_cidr),
            ("podCIDR", &self.pod_cidr),
            ("apiAddress", &self.api_address.to_string()),
            ("nodeName", &self.node_name),
            ("nodeIP", &self.node_ip.to_string()),
            ("dataDir", &self.data_dir.display().to_string()),
            ("instance", &self.instance),
        ] {
            variables.set(name, Form::Text, value);
        }
        variables.set("apiPort", Form::Number, self.api_port.to_string());
        variables
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    /// Where anyone's own addons are.
    pub folder: PathBuf,
    /// What the first start enables.
    pub first: Vec<String>,
    pub facts: Facts,
}

/// Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    client: Client,
    config: Config,
    cancel: CancellationToken,
    /// The name of the executable's image, once it is known.
    image: watch::Sender<Option<String>>,
    /// One an addon.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Engine {
    /// `client` may do everything. Operations end at `cancel`.
    #[must_use]
    pub fn new(client: Client, config: Config, cancel: CancellationToken) -> Self {
        Self(Arc::new(Inner { client, config, cancel, image: watch::Sender::new(None), locks: Mutex::default() }))
    }

    /// Manifests wait for it.
    pub fn set_image(&self, name: &str) {
        self.0.image.send_replace(Some(name.to_owned()));
    }

    /// Enables `wanted`, each `NAME[:ARGUMENTS]`, and what they depend on; gives up waiting for each to work after `limit`.
    /// The steps as they are done; the work goes on if nobody listens.
    #[must_use]
    pub fn enable(&self, wanted: Vec<String>, limit: Option<Duration>) -> mpsc::UnboundedReceiver<admin::Step> {
        let (out, steps) = mpsc::unbounded_channel();
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.0.enable(&wanted, limit, &out).await {
                Steps::new("", Some(out)).failed(error.to_string());
            }
        });
        steps
    }

    /// Disables `names`; the steps as they are done.
    #[must_use]
    pub fn disable(&self, names: Vec<String>) -> mpsc::UnboundedReceiver<admin::Step> {
        let (out, steps) = mpsc::unbounded_channel();
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.0.disable(&names, &out).await {
                Steps::new("", Some(out)).failed(error.to_string());
            }
        });
        steps
    }

    /// What a start owes: at the first one, the addons of the configuration; later, whatever a new version, executable or
    /// address changed, and what was left half done. Writes nothing when nothing changed.
    pub fn resume(&self) {
        let engine = self.clone();
        self.spawn(async move {
            if let Err(error) = engine.0.resume().await {
                tracing::error!(%error, "addons could not be brought up to date");
            }
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.0.cancel.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(work).await });
    }

    /// All addons, enabled or not.
    ///
    /// # Errors
    /// The API does not answer.
    pub async fn list(&self) -> Result<admin::Addons, Error> {
        self.0.list().await
    }
}

type Out = mpsc::UnboundedSender<admin::Step>;

impl Inner {
    fn cluster(&self) -> Cluster {
        Cluster::new(self.client.clone())
    }

    /// With the image's name, which a start takes a moment to find.
    async fn variables(&self) -> Variables {
        let mut image = self.image.subscribe();
        let known = image.wait_for(Option::is_some).await;
        self.config.facts.variables(known.as_ref().ok().and_then(|name| name.as_deref()).unwrap_or_default())
    }

    fn catalog(&self, variables: &Variables) -> Catalog {
        Catalog::read(&self.config.folder, variables)
    }

    async fn lock(&self, addon: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock =
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(addon.to_owned()).or_default().clone();
        lock.lock_owned().await
    }

    async fn enable(&self, wanted: &[String], limit: Option<Duration>, out: &Out) -> Result<(), Error> {
        if self.image.borrow().is_none() {
            Steps::new("", Some(out.clone())).say("waits for the node to come up".to_owned());
        }
        let variables = match limit {
            Some(limit) => tokio::time::timeout(limit, self.variables()).await.map_err(|_| Error::NoNode)?,
            None => self.variables().await,
        };
        let catalog = self.catalog(&variables);
        let wanted: BTreeMap<&str, &str> =
            wanted.iter().map(|one| one.split_once(':').unwrap_or((one.as_str(), ""))).collect();
        let names: Vec<String> = wanted.keys().map(|name| (*name).to_owned()).collect();
        let groups = catalog.in_order(&names).map_err(Error::Invalid)?;
        let mut failed: Vec<&str> = Vec::new();
        for group in groups {
            let working = group.iter().map(|addon| async {
                let steps = Steps::new(&addon.name, Some(out.clone()));
                let done = match addon.depends_on.iter().find(|on| failed.contains(&on.as_str())) {
                    Some(on) => Err(Error::Invalid(format!("it depends on {on}, which failed"))),
                    None => {
                        self.enable_one(addon, wanted.get(addon.name.as_str()).copied(), &variables, limit, &steps)
                            .await
                    }
                };
                match done {
                    Ok(()) => None,
                    Err(error) => {
                        steps.failed(error.to_string());
                        Some(addon.name.as_str())
                    }
                }
            });
            failed.extend(futures::future::join_all(working).await.into_iter().flatten());
        }
        Ok(())
    }

    /// `arguments`: none for an addon that only another one depends on.
    async fn enable_one(
        &self,
        addon: &Addon,
        arguments: Option<&str>,
        variables: &Variables,
        limit: Option<Duration>,
        steps: &Steps,
    ) -> Result<(), Error> {
        let cluster = self.cluster();
        if arguments.is_none() {
            let known = Record::read(&cluster, &addon.name).await?;
            if known.is_some_and(|record| record.stage == Stage::Enabled) {
                return Ok(());
            }
        }
        let rendered = self.bring(&cluster, addon, arguments.unwrap_or_default(), variables, steps).await?;
        readiness::wait(&cluster, &rendered.checks, limit, steps).await?;
        steps.done("enabled".to_owned());
        Ok(())
    }

    /// Makes the cluster as the manifests say.
    async fn bring(
        &self,
        cluster: &Cluster,
        addon: &Addon,
        arguments: &str,
        variables: &Variables,
        steps: &Steps,
    ) -> Result<Rendered, Error> {
        let _alone = self.lock(&addon.name).await;
        let before = Record::read(cluster, &addon.name).await?;
        if let Some(other) = before.as_ref().filter(|record| record.repository != addon.repository) {
            let why = format!("one of that name is enabled from {}; disable it first", other.repository);
            return Err(Error::Invalid(why));
        }
        let known = before.as_ref().map(|record| record.arguments.clone()).unwrap_or_default();
        let given = arguments::parse(&addon.arguments, arguments, &known).map_err(Error::Invalid)?;
        let mut rendered = addon.render(variables, &given).map_err(Error::Invalid)?;
        if let Some(why) = ports::taken(&rendered.objects) {
            return Err(Error::Invalid(why));
        }
        let digest = digest(&rendered);
        let recorded = before.as_ref().map(|record| record.inventory.clone()).unwrap_or_default();
        let objects = apply::arranged(cluster, std::mem::take(&mut rendered.objects)).await?;
        let owned = apply::owned(cluster, &addon.name, &objects, &recorded).await?;
        let stale: Vec<Id> = recorded.into_iter().filter(|id| !owned.contains(id)).collect();
        let after = Record {
            version: addon.version.clone(),
            repository: addon.repository.clone(),
            arguments: given,
            digest,
            inventory: owned.clone(),
            stage: Stage::Enabled,
        };
        // What is about to be made is written down before, so that nothing is forgotten whatever happens.
        if before.as_ref() != Some(&after) {
            let inventory = owned.iter().chain(&stale).cloned().collect();
            Record { stage: Stage::Enabling, inventory, ..after.clone() }.write(cluster, &addon.name).await?;
        }
        apply::apply(cluster, &addon.name, objects, &owned, steps).await?;
        let stale = apply::still_ours(cluster, &addon.name, stale).await?;
        if !stale.is_empty() {
            apply::remove(cluster, &stale).await?;
            steps.say(format!("removed what it no longer has: {}", apply::counted(&stale)));
        }
        after.write(cluster, &addon.name).await?;
        Ok(rendered)
    }

    async fn disable(&self, names: &[String], out: &Out) -> Result<(), Error> {
        let cluster = self.cluster();
        let catalog = self.catalog(&self.config.facts.variables(""));
        let records = Record::all(&cluster).await?;
        for name in names {
            if !records.contains_key(name) {
                catalog.find(name).map_err(Error::Invalid)?;
            }
        }
        // Those that depend on others before those.
        let order: Vec<&str> = match catalog.in_order(names) {
            Ok(groups) => groups.into_iter().flatten().map(|addon| addon.name.as_str()).rev().collect(),
            Err(_) => Vec::new(),
        };
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_by_key(|name| order.iter().position(|one| one == name));
        sorted.dedup();
        for name in sorted {
            let steps = Steps::new(name, Some(out.clone()));
            let needing = records.keys().filter(|other| {
                !names.contains(other)
                    && catalog.addons.get(*other).is_some_and(|addon| addon.depends_on.contains(name))
            });
            for other in needing {
                steps.warn(format!("{other} is enabled and depends on it"));
            }
            if let Err(error) = self.disable_one(&cluster, name, &steps).await {
                steps.failed(error.to_string());
            }
        }
        Ok(())
    }

    async fn disable_one(&self, cluster: &Cluster, name: &str, steps: &Steps) -> Result<(), Error> {
        let _alone = self.lock(name).await;
        let Some(mut record) = Record::read(cluster, name).await? else {
            steps.done("is not enabled".to_owned());
            return Ok(());
        };
        let recorded = apply::still_ours(cluster, name, record.inventory.clone()).await?;
        let all = apply::everything(cluster, name, &recorded).await?;
        record.stage = Stage::Disabling;
        record.write(cluster, name).await?;
        if !all.is_empty() {
            steps.say(format!("removes {}", apply::counted(&all)));
        }
        apply::remove(cluster, &all).await?;
        Record::remove(cluster, name).await?;
        steps.done("disabled".to_owned());
        Ok(())
    }

    async fn resume(&self) -> Result<(), Error> {
        let variables = self.variables().await;
        let cluster = self.cluster();
        let catalog = self.catalog(&variables);
        for why in catalog.refused.values() {
            tracing::warn!("{why}");
        }
        if !record::was_first_start(&cluster).await? {
            self.bring_all(&cluster, &catalog, &variables, &self.config.first).await;
            record::note_first_start(&cluster, &self.config.first).await?;
        }
        let mut changed = Vec::new();
        for (name, record) in Record::all(&cluster).await? {
            if record.stage == Stage::Disabling {
                let steps = Steps::new(&name, None);
                self.disable_one(&cluster, &name, &steps).await.unwrap_or_else(|error| steps.failed(error.to_string()));
                continue;
            }
            let Some(addon) = catalog.addons.get(&name) else { continue };
            let now = addon.render(&variables, &record.arguments).map(|rendered| digest(&rendered));
            if record.stage == Stage::Enabling || record.version != addon.version || now.as_ref() != Ok(&record.digest)
            {
                changed.push(name);
            }
        }
        self.bring_all(&cluster, &catalog, &variables, &changed).await;
        Ok(())
    }

    /// Each as well as it goes.
    async fn bring_all(&self, cluster: &Cluster, catalog: &Catalog, variables: &Variables, names: &[String]) {
        let known = |name: &&String| match catalog.find(name) {
            Ok(_) => true,
            Err(why) => {
                tracing::warn!("{why}");
                false
            }
        };
        let names: Vec<String> = names.iter().filter(known).cloned().collect();
        let groups = catalog.in_order(&names).unwrap_or_else(|why| {
            tracing::warn!("{why}");
            Vec::new()
        });
        for addon in groups.into_iter().flatten() {
            let steps = Steps::new(&addon.name, None);
            if let Err(error) = self.bring(cluster, addon, "", variables, &steps).await {
                steps.failed(error.to_string());
            }
        }
    }

    async fn list(&self) -> Result<admin::Addons, Error> {
        let image = self.image.borrow().clone().unwrap_or_default();
        let variables = self.config.facts.variables(&image);
        let cluster = self.cluster();
        let catalog = self.catalog(&variables);
        let mut records = Record::all(&cluster).await?;
        let mut addons = Vec::new();
        for addon in catalog.addons.values() {
            let record = records.remove(&addon.name);
            let message = match &record {
                Some(record) => complaint(&cluster, addon, record, &variables).await,
                None => None,
            };
            addons.push(admin::Addon {
                name: addon.name.clone(),
                repository: addon.repository.clone(),
                description: addon.description.clone(),
                // What is in the cluster, where something is.
                version: record.as_ref().map_or(&addon.version, |record| &record.version).clone(),
                enabled: record.is_some(),
                message: message.unwrap_or_default(),
                depends_on: addon.depends_on.clone(),
                arguments: addon.arguments.iter().map(|argument| told(argument, record.as_ref())).collect(),
            });
        }
        for (name, record) in records {
            addons.push(admin::Addon {
                name,
                repository: record.repository,
                version: record.version,
                enabled: true,
                description: "its directory is gone; it can only be disabled".to_owned(),
                ..admin::Addon::default()
            });
        }
        addons.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(admin::Addons { addons, warnings: catalog.refused.into_values().collect() })
    }
}

/// What is not well with an enabled addon, as far as the API tells.
async fn complaint(cluster: &Cluster, addon: &Addon, record: &Record, variables: &Variables) -> Option<String> {
    match record.stage {
        Stage::Disabling => {
            return Some(format!("is being disabled; if that ended half-way, `mini disable {}` goes on", addon.name));
        }
        Stage::Enabling => {
            return Some(format!("is being enabled; if that ended half-way, `mini enable {}` goes on", addon.name));
        }
        Stage::Enabled => {}
    }
    let rendered = match addon.render(variables, &record.arguments) {
        Ok(rendered) => rendered,
        Err(why) => return Some(why),
    };
    for check in &rendered.checks {
        if let Some(why) = check.complaint(cluster).await {
            return Some(why);
        }
    }
    None
}

fn told(argument: &Argument, record: Option<&Record>) -> admin::Argument {
    admin::Argument {
        name: argument.name.clone(),
        description: argument.description.clone(),
        kind: argument.kind.to_string(),
        default: argument.default.clone(),
        value: record.and_then(|record| record.arguments.get(&argument.name).cloned()),
    }
}

/// Of what is applied, for a start to see what changed.
fn digest(rendered: &Rendered) -> String {
    let mut sha = Sha256::new();
    sha.update(json!(rendered.objects).to_string());
    sha.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
