//! The node's images: import, list, remove and pull.
//!
//! Writes through containerd's content, image and snapshot services under a lease, as its own client does, so that CRI
//! sees what was imported. Knows no pod. Invariant: an image is named only once all its content is there and unpacked.

mod archive;
pub(crate) mod content;
pub(crate) mod pull;
pub(crate) mod reference;

use crate::runtime::Runtime;
use archive::Archive;
use content::{Blob, Store};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {0}: {1}")]
    Read(String, #[source] io::Error),
    #[error("{0} is not an image archive: it holds neither index.json (OCI) nor manifest.json (docker save)")]
    NotAnArchive(String),
    #[error("the image archive is damaged: {0}")]
    Damaged(String),
    #[error(
        "the archive names no image: write it with a name (docker save NAME, or an org.opencontainers.image.ref.name)"
    )]
    Nameless,
    #[error("invalid image name {0:?}")]
    Name(String),
    #[error("no image {0} on this node")]
    NotFound(String),
    #[error("containerd refused: {0}")]
    Containerd(#[from] tonic::Status),
}

/// One image on the node.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImageInfo {
    /// The digest of its configuration.
    pub id: String,
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    /// Bytes of its content as stored (compressed where it came compressed).
    pub size: u64,
}

/// The images of one containerd.
#[derive(Clone)]
pub struct Images {
    runtime: Runtime,
    snapshotter: &'static str,
}

impl Images {
    /// `home` is containerd's directory, whose file system decides the snapshotter.
    #[must_use]
    pub fn new(runtime: Runtime, home: &Path) -> Self {
        Self { runtime, snapshotter: crate::containerd::snapshotter(home) }
    }

    /// Imports every image of a docker-archive or OCI tar, gzipped or not; the names of what was imported.
    ///
    /// # Errors
    /// When the file is no image archive, names no image, or containerd refuses.
    pub async fn import(&self, path: &Path) -> Result<Vec<String>, Error> {
        let opening = path.to_owned();
        let archive = tokio::task::spawn_blocking(move || Archive::open(&opening))
            .await
            .map_err(|e| Error::Damaged(e.to_string()))??;
        let images = archive.images()?;
        let store = Store::lease(&self.runtime, self.snapshotter).await?;
        let mut names = Vec::new();
        let outcome = async {
            for image in images {
                if image.names.is_empty() {
                    return Err(Error::Nameless);
                }
                let target = store.write_tree(&archive, &image.target).await?;
                let id = store.unpack(&archive, &image.target).await?;
                for name in &image.names {
                    let name = reference::normalize(name).ok_or_else(|| Error::Name(name.clone()))?;
                    store.name(&name, &id, &target).await?;
                    names.push(name);
                }
            }
            Ok(())
        }
        .await;
        store.release().await;
        outcome?;
        for name in &names {
            self.await_seen(name).await?;
        }
        Ok(names)
    }

    /// Writes a one-layer image made of `layer` (an uncompressed tar) under `name`, unless that name exists already.
    pub(crate) async fn ensure<F>(&self, name: &str, image: F) -> Result<(), Error>
    where
        F: FnOnce() -> io::Result<Packed> + Send + 'static,
    {
        if self.runtime.image(name).await?.is_some() {
            return Ok(());
        }
        let packed = tokio::task::spawn_blocking(image).await.map_err(|e| Error::Damaged(e.to_string()))?;
        let packed = packed.map_err(|e| Error::Read(name.to_owned(), e))?;
        let store = Store::lease(&self.runtime, self.snapshotter).await?;
        let outcome = async {
            let target = store.write_tree(&packed, &packed.target).await?;
            let id = store.unpack(&packed, &packed.target).await?;
            store.name(name, &id, &target).await
        }
        .await;
        store.release().await;
        outcome?;
        self.await_seen(name).await
    }

    /// # Errors
    /// When containerd does not answer.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, Error> {
        let mut images: Vec<ImageInfo> = self
            .runtime
            .list_images()
            .await?
            .into_iter()
            .map(|i| ImageInfo { id: i.id, tags: i.repo_tags, digests: i.repo_digests, size: i.size })
            .collect();
        images.sort_by(|a, b| (&a.tags, &a.id).cmp(&(&b.tags, &b.id)));
        Ok(images)
    }

    /// Names and ids of the images that containers were made from, running or not.
    pub(crate) async fn of_containers(&self) -> Result<HashSet<String>, Error> {
        let containers = self.runtime.containers(HashMap::new()).await?;
        Ok(containers.into_iter().flat_map(|c| [c.image_ref, c.image.unwrap_or_default().image]).collect())
    }

    /// Removes a name; the last name takes the content with it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no image has that name or id.
    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let image = self.runtime.image(name).await?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let full = reference::normalize(name);
        match full.filter(|f| image.repo_tags.len() > 1 && image.repo_tags.contains(f)) {
            Some(full) => content::delete_name(&self.runtime, &full).await?,
            None => self.runtime.remove_image(name).await?,
        }
        Ok(())
    }

    /// CRI learns of new images from containerd's events; wait until it has.
    async fn await_seen(&self, name: &str) -> Result<(), Error> {
        for _ in 0..500 {
            if self.runtime.image(name).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Error::NotFound(name.to_owned()))
    }
}

/// Content by digest, wherever it comes from.
pub(crate) trait Source: Sync {
    fn blob(&self, digest: &str) -> Option<Blob>;
}

/// What a manifest says of one blob (`application/vnd.oci.descriptor`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

/// An index or a manifest; each field is there in one of the two.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<Descriptor>,
}

/// A single image held in memory and files of ours.
pub(crate) struct Packed {
    pub(crate) target: Descriptor,
    pub(crate) blobs: Vec<(String, Blob)>,
}

impl Source for Packed {
    fn blob(&self, digest: &str) -> Option<Blob> {
        self.blobs.iter().find(|(d, _)| d == digest).map(|(_, b)| b.clone())
    }
}

/// `GOARCH` of this machine.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
