//! Writing into containerd's content store, naming and unpacking, all under one lease.
//!
//! Labels tell containerd's garbage collector what refers to what; the lease protects what is not yet referred to.

use super::archive::read_at;
use super::{Descriptor, Error, Manifest, Source, architecture};
use crate::runtime::{NAMESPACE, Runtime};
use containerd_client::services::v1::snapshots as snap;
use containerd_client::services::v1::{
    ApplyRequest, CreateImageRequest, CreateRequest, DeleteImageRequest, DeleteRequest, Image, Info,
    UpdateImageRequest, UpdateRequest, WriteAction, WriteContentRequest,
};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use tonic::{Code, Request, Status};

const CHUNK: usize = 1 << 20;
/// The label by which CRI knows an image as its own.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");

/// Bytes from memory and from files, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blob {
    pub(crate) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Arc<Vec<u8>>),
    File { path: Arc<PathBuf>, offset: u64, len: u64 },
}

impl Blob {
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Self { parts: vec![Part::Bytes(Arc::new(bytes))] }
    }

    pub(crate) fn len(&self) -> u64 {
        self.parts
            .iter()
            .map(|p| match p {
                Part::Bytes(b) => b.len() as u64,
                Part::File { len, .. } => *len,
            })
            .sum()
    }

    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.each_chunk(|chunk| {
            out.extend_from_slice(&chunk);
            true
        })?;
        Ok(out)
    }

    pub(crate) fn read_start(&self, out: &mut [u8]) -> io::Result<()> {
        let start = match self.parts.first() {
            Some(Part::Bytes(b)) => b.to_vec(),
            Some(Part::File { path, offset, len }) => read_at(path, *offset, (*len).min(out.len() as u64))?,
            None => Vec::new(),
        };
        let n = out.len();
        out.copy_from_slice(start.get(..n).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(crate) fn digest(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        self.each_chunk(|chunk| {
            hash.update(&chunk);
            true
        })?;
        Ok(format!("sha256:{}", hex::encode(hash.finalize())))
    }

    /// Blocking; stops early when `take` answers false.
    fn each_chunk(&self, mut take: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => {
                    for chunk in bytes.chunks(CHUNK) {
                        if !take(chunk.to_vec()) {
                            return Ok(());
                        }
                    }
                }
                Part::File { path, offset, len } => {
                    let mut file = File::open(&**path)?;
                    file.seek(SeekFrom::Start(*offset))?;
                    let mut left = *len;
                    while left > 0 {
                        let mut chunk = Vec::with_capacity(CHUNK);
                        (&mut file).take(left.min(CHUNK as u64)).read_to_end(&mut chunk)?;
                        if chunk.is_empty() {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        left -= chunk.len() as u64;
                        if !take(chunk) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A lease on containerd's store.
pub(super) struct Store {
    runtime: Runtime,
    snapshotter: &'static str,
    lease: String,
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

impl Store {
    pub(super) async fn lease(runtime: &Runtime, snapshotter: &'static str) -> Result<Self, Status> {
        let lease = format!("mini-import-{}", uuid::Uuid::new_v4());
        // Should we die, the garbage collector drops the lease after a day.
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expiry.to_string())]);
        runtime.leases().create(in_namespace(CreateRequest { id: lease.clone(), labels })).await?;
        Ok(Self { runtime: runtime.clone(), snapshotter, lease })
    }

    pub(super) async fn release(self) {
        let request = in_namespace(DeleteRequest { id: self.lease, sync: false });
        if let Err(error) = self.runtime.leases().delete(request).await {
            tracing::debug!(%error, "import lease not released; it expires");
        }
    }

    fn leased<T>(&self, message: T) -> Request<T> {
        let mut request = in_namespace(message);
        if let Ok(value) = self.lease.parse() {
            request.metadata_mut().insert("containerd-lease", value);
        }
        request
    }

    /// Writes what `target` refers to, children first.
    pub(super) async fn write_tree(
        &self,
        source: &dyn Source,
        target: &Descriptor,
    ) -> Result<containerd_client::types::Descriptor, Error> {
        // Parents come before children in `order`, so it is written backwards.
        let mut order = vec![(target.clone(), HashMap::new())];
        let mut next = 0;
        while let Some((descriptor, _)) = order.get(next).cloned() {
            let mut labels = HashMap::new();
            if is_parent(&descriptor.media_type) {
                let manifest = read_manifest(source, &descriptor)?;
                let mut child = |key: String, d: &Descriptor| {
                    // An archive may hold one platform of many.
                    if source.blob(&d.digest).is_some() {
                        labels.insert(format!("containerd.io/gc.ref.content.{key}"), d.digest.clone());
                        order.push((d.clone(), HashMap::new()));
                    }
                };
                manifest.manifests.iter().enumerate().for_each(|(i, d)| child(format!("m.{i}"), d));
                manifest.config.iter().for_each(|d| child("config".to_owned(), d));
                manifest.layers.iter().enumerate().for_each(|(i, d)| child(format!("l.{i}"), d));
            }
            if let Some(slot) = order.get_mut(next) {
                slot.1 = labels;
            }
            next += 1;
            if next > 10_000 {
                return Err(Error::Damaged("more than 10000 blobs".to_owned()));
            }
        }
        for (descriptor, labels) in order.into_iter().rev() {
            let blob = source.blob(&descriptor.digest).ok_or_else(|| missing(&descriptor))?;
            self.write(&descriptor.digest, blob, labels).await?;
        }
        Ok(containerd_client::types::Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.clone(),
            size: target.size,
            annotations: HashMap::new(),
        })
    }

    async fn write(&self, digest: &str, blob: Blob, labels: HashMap<String, String>) -> Result<(), Error> {
        let total = i64::try_from(blob.len()).unwrap_or(i64::MAX);
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let first = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: format!("mini-{}-{digest}", self.lease),
            total,
            expected: digest.to_owned(),
            ..Default::default()
        };
        let commit = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: total,
            labels: labels.clone(),
            ..first.clone()
        };
        let reading = tokio::task::spawn_blocking(move || {
            let mut offset = 0;
            let mut message = first;
            blob.each_chunk(|data| {
                let n = i64::try_from(data.len()).unwrap_or(0);
                let sent = sender.blocking_send(WriteContentRequest { offset, data, ..message.clone() }).is_ok();
                offset += n;
                message.total = total;
                sent
            })?;
            let _ = sender.blocking_send(commit);
            Ok::<_, io::Error>(())
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let answer = async {
            let mut answers = self.runtime.content().write(self.leased(stream)).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok::<_, Status>(())
        }
        .await;
        match answer {
            Ok(()) => {}
            Err(status) if status.code() == Code::AlreadyExists => self.label(digest, labels).await?,
            Err(status) => return Err(status.into()),
        }
        reading.await.map_err(|e| Error::Damaged(e.to_string()))?.map_err(|e| Error::Read(digest.to_owned(), e))
    }

    /// Adds labels to content that exists.
    async fn label(&self, digest: &str, labels: HashMap<String, String>) -> Result<(), Status> {
        if labels.is_empty() {
            return Ok(());
        }
        let paths = labels.keys().map(|k| format!("labels.{k}")).collect();
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_owned(), labels, ..Default::default() }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        self.runtime.content().update(self.leased(request)).await.map(drop)
    }

    /// Makes the snapshots of the image for this machine's platform; the image's id.
    pub(super) async fn unpack(&self, source: &dyn Source, target: &Descriptor) -> Result<String, Error> {
        let manifest = platform_manifest(source, target)?;
        let config = manifest.config.ok_or_else(|| Error::Damaged("a manifest without config".to_owned()))?;
        let bytes = source
            .blob(&config.digest)
            .ok_or_else(|| missing(&config))?
            .read()
            .map_err(|e| Error::Read(config.digest.clone(), e))?;
        let parsed: ImageConfig = serde_json::from_slice(&bytes).map_err(|e| Error::Damaged(e.to_string()))?;
        if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Damaged("config and manifest differ in their number of layers".to_owned()));
        }
        let mut chain = String::new();
        for (layer, diff_id) in manifest.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let parent = chain.clone();
            chain =
                if parent.is_empty() { diff_id.clone() } else { digest_of(format!("{parent} {diff_id}").as_bytes()) };
            self.unpack_layer(layer, diff_id, &parent, &chain).await?;
        }
        if !chain.is_empty() {
            let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
            self.label(&config.digest, HashMap::from([(label, chain)])).await?;
        }
        Ok(config.digest)
    }

    async fn unpack_layer(&self, layer: &Descriptor, diff_id: &str, parent: &str, chain: &str) -> Result<(), Error> {
        let snapshotter = self.snapshotter.to_owned();
        let stat = snap::StatSnapshotRequest { snapshotter: snapshotter.clone(), key: chain.to_owned() };
        if self.runtime.snapshots().stat(self.leased(stat)).await.is_ok() {
            return Ok(());
        }
        let key = format!("extract-{} {chain}", uuid::Uuid::new_v4());
        let prepare = snap::PrepareSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let mounts = self.runtime.snapshots().prepare(self.leased(prepare)).await?.into_inner().mounts;
        let apply = ApplyRequest {
            diff: Some(containerd_client::types::Descriptor {
                media_type: layer.media_type.clone(),
                digest: layer.digest.clone(),
                size: layer.size,
                annotations: HashMap::new(),
            }),
            mounts,
            ..Default::default()
        };
        let outcome = async {
            let applied = self.runtime.diff().apply(self.leased(apply)).await?.into_inner().applied.unwrap_or_default();
            if applied.digest != diff_id {
                return Err(Error::Damaged(format!("layer {} unpacks to {}", layer.digest, applied.digest)));
            }
            let commit = snap::CommitSnapshotRequest {
                snapshotter: snapshotter.clone(),
                name: chain.to_owned(),
                key: key.clone(),
                ..Default::default()
            };
            match self.runtime.snapshots().commit(self.leased(commit)).await {
                Err(status) if status.code() == Code::AlreadyExists => Ok(false),
                Err(status) => Err(status.into()),
                Ok(_) => Ok(true),
            }
        }
        .await;
        if !matches!(outcome, Ok(true)) {
            let remove = snap::RemoveSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone() };
            let _ = self.runtime.snapshots().remove(self.leased(remove)).await;
        }
        outcome.map(drop)
    }

    /// Names `target`, and names it by its id as CRI does.
    pub(super) async fn name(
        &self,
        name: &str,
        id: &str,
        target: &containerd_client::types::Descriptor,
    ) -> Result<(), Error> {
        for name in [id, name] {
            let image = Image {
                name: name.to_owned(),
                labels: HashMap::from([(MANAGED.0.to_owned(), MANAGED.1.to_owned())]),
                target: Some(target.clone()),
                ..Default::default()
            };
            let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
            match self.runtime.image_names().create(self.leased(create)).await {
                Err(status) if status.code() == Code::AlreadyExists => {
                    let update = UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
                    self.runtime.image_names().update(self.leased(update)).await?;
                }
                Err(status) => return Err(status.into()),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

pub(super) async fn delete_name(runtime: &Runtime, name: &str) -> Result<(), Status> {
    let request = DeleteImageRequest { name: name.to_owned(), sync: true, ..Default::default() };
    runtime.image_names().delete(in_namespace(request)).await.map(drop)
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ImageConfig {
    rootfs: RootFs,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

fn is_parent(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn missing(descriptor: &Descriptor) -> Error {
    Error::Damaged(format!("{} is missing", descriptor.digest))
}

fn read_manifest(source: &dyn Source, descriptor: &Descriptor) -> Result<Manifest, Error> {
    let blob = source.blob(&descriptor.digest).ok_or_else(|| missing(descriptor))?;
    if blob.len() > 16 << 20 {
        return Err(Error::Damaged(format!("manifest {} is {} bytes long", descriptor.digest, blob.len())));
    }
    let bytes = blob.read().map_err(|e| Error::Read(descriptor.digest.clone(), e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Damaged(format!("{}: {e}", descriptor.digest)))
}

/// Follows indexes to the manifest for this machine.
fn platform_manifest(source: &dyn Source, target: &Descriptor) -> Result<Manifest, Error> {
    let mut manifest = read_manifest(source, target)?;
    for _ in 0..8 {
        if manifest.manifests.is_empty() {
            return Ok(manifest);
        }
        let here = |d: &&Descriptor| source.blob(&d.digest).is_some();
        let fits =
            |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
        let next = manifest
            .manifests
            .iter()
            .filter(here)
            .find(fits)
            .ok_or_else(|| Error::Damaged(format!("no image for linux/{} in it", architecture())))?;
        manifest = read_manifest(source, next)?;
    }
    Err(Error::Damaged("indexes nested too deep".to_owned()))
}
