//! What was enabled, as the cluster remembers it: one ConfigMap an addon.

use super::Error;
use super::apply::{NAMESPACE, record_labels};
use super::cluster::{Cluster, Id};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const PREFIX: &str = "mini-addon-";
/// Marks records, and the note of the first start.
const LABEL: (&str, &str) = ("mini.local/record", "addon");

/// How far an addon has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Objects are being made; ended here, the next enable or start goes on.
    #[default]
    Enabling,
    Enabled,
    Disabling,
}

const STAGES: [(Stage, &str); 3] =
    [(Stage::Enabling, "enabling"), (Stage::Enabled, "enabled"), (Stage::Disabling, "disabling")];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: String,
    pub(super) repository: String,
    pub(super) arguments: BTreeMap<String, String>,
    /// Of everything that was rendered.
    pub(super) digest: String,
    pub(super) inventory: Vec<Id>,
    pub(super) stage: Stage,
}

fn id(addon: &str) -> Id {
    Id::new("v1", "ConfigMap", Some(NAMESPACE), &format!("{PREFIX}{addon}"))
}

impl Record {
    fn of(object: &Value) -> Self {
        let data = &object["data"];
        let text = |key: &str| data[key].as_str().unwrap_or_default();
        let stage = STAGES.iter().find(|(_, name)| *name == text("stage")).map(|(stage, _)| *stage);
        Self {
            version: text("version").to_owned(),
            repository: text("repository").to_owned(),
            arguments: serde_json::from_str(text("arguments")).unwrap_or_default(),
            digest: text("digest").to_owned(),
            inventory: text("inventory").lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            stage: stage.unwrap_or_default(),
        }
    }

    fn data(&self) -> Value {
        let stage = STAGES.iter().find(|(stage, _)| *stage == self.stage).map_or("", |(_, name)| name);
        let inventory = self.inventory.iter().map(|id| json!(id).to_string() + "\n").collect::<String>();
        json!({
            "version": self.version, "repository": self.repository, "arguments": json!(self.arguments).to_string(),
            "digest": self.digest, "inventory": inventory, "stage": stage,
        })
    }

    pub(super) async fn read(cluster: &Cluster, addon: &str) -> Result<Option<Self>, Error> {
        Ok(cluster.get(&id(addon)).await?.map(|object| Self::of(&object)))
    }

    /// Every addon that has one.
    pub(super) async fn all(cluster: &Cluster) -> Result<BTreeMap<String, Self>, Error> {
        let selector = format!("labelSelector={}%3D{}", LABEL.0, LABEL.1);
        let found = cluster.list("v1", "ConfigMap", Some(NAMESPACE), &selector).await?;
        let named = |object: &Value| object["metadata"]["name"].as_str()?.strip_prefix(PREFIX).map(str::to_owned);
        Ok(found.iter().filter_map(|object| Some((named(object)?, Self::of(object)))).collect())
    }

    /// Writes it, unless that is what is there.
    pub(super) async fn write(&self, cluster: &Cluster, addon: &str) -> Result<(), Error> {
        write(cluster, &id(addon), self.data()).await
    }

    pub(super) async fn remove(cluster: &Cluster, addon: &str) -> Result<(), Error> {
        cluster.delete(&id(addon), false).await
    }
}

async fn write(cluster: &Cluster, id: &Id, data: Value) -> Result<(), Error> {
    match cluster.get(id).await? {
        Some(live) if live["data"] == data => Ok(()),
        Some(_) => cluster.patch(id, &json!({ "data": data })).await.map(drop),
        None => {
            let mut labels = record_labels();
            labels[LABEL.0] = LABEL.1.into();
            let meta = json!({"name": id.name, "namespace": id.namespace, "labels": labels});
            let object = json!({"apiVersion": id.api_version, "kind": id.kind, "metadata": meta, "data": data});
            cluster.create(&object).await.map(drop)
        }
    }
}

fn first_start() -> Id {
    Id::new("v1", "ConfigMap", Some(NAMESPACE), "mini-addons")
}

/// Was the first start's list enabled in this cluster, whatever became of it?
pub(super) async fn was_first_start(cluster: &Cluster) -> Result<bool, Error> {
    Ok(cluster.get(&first_start()).await?.is_some())
}

pub(super) async fn note_first_start(cluster: &Cluster, addons: &[String]) -> Result<(), Error> {
    let data = Map::from_iter([("firstStart".to_owned(), addons.join(" ").into())]);
    write(cluster, &first_start(), data.into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let record = Record {
            version: "1".into(),
            repository: "core".into(),
            arguments: [("forwarders".to_owned(), "1.1.1.1".to_owned())].into(),
            digest: "d".into(),
            inventory: vec![Id::new("v1", "Service", Some("n"), "a"), Id::new("v1", "Namespace", None, "n")],
            stage: Stage::Enabled,
        };
        assert_eq!(Record::of(&json!({"data": record.data()})), record);
        assert_eq!(Record::of(&json!({})), Record::default());
    }
}
