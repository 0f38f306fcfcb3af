//! The executable packed as a one-layer image, `mini.local/mini:<digest>`: the sandbox image, and what addon pods run.
//!
//! Invariant: packed and written only when the executable is new; a start with a known one reads no more than its metadata.
//! Images of earlier executables go when nothing needs them any more.

use crate::images::content::{Blob, Part, digest_of};
use crate::images::{Descriptor, Error, ImageInfo, Images, Manifest, Packed, architecture};
use k8s_openapi::api::core::v1::Pod;
use mini_client::{Cache, CancellationToken};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const REPOSITORY: &str = "mini.local/mini:";
/// When images of earlier executables are looked at first; addons may still be on their way to the new one. Then after
/// twice as long each time, up to [`RETIRE_MAX`], until none is left.
const RETIRE: Duration = Duration::from_secs(10);
const RETIRE_MAX: Duration = Duration::from_secs(60 * 60);

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An executable and the image name that its content gives.
#[derive(Clone, Debug)]
pub struct SelfImage {
    executable: PathBuf,
    /// `mini.local/mini:<digest>`.
    pub name: String,
}

impl SelfImage {
    /// Names the image of `executable`; the digest is remembered in `data_dir` by the file's identity.
    ///
    /// # Errors
    /// When the executable cannot be read.
    pub fn of(executable: &Path, data_dir: &Path) -> io::Result<Self> {
        let meta = fs::metadata(executable)?;
        let identity = format!("{} {} {} {}.{}", meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        let note = data_dir.join("self-image");
        let known = fs::read_to_string(&note)
            .ok()
            .and_then(|text| text.strip_prefix(&format!("{identity} ")).map(|d| d.trim().to_owned()))
            .filter(|d| !d.is_empty());
        let digest = match known {
            Some(digest) => digest,
            None => {
                let digest = file_blob(executable)?.digest()?;
                let digest = digest.strip_prefix("sha256:").and_then(|d| d.get(..16)).unwrap_or(&digest).to_owned();
                fs::create_dir_all(data_dir)?;
                fs::write(&note, format!("{identity} {digest}\n"))?;
                digest
            }
        };
        Ok(Self { executable: executable.to_owned(), name: format!("{REPOSITORY}{digest}") })
    }

    /// Writes the image into containerd unless it is there.
    ///
    /// # Errors
    /// When the executable cannot be read or containerd refuses.
    pub async fn ensure(&self, images: &Images) -> Result<(), Error> {
        let executable = self.executable.clone();
        images.ensure(&self.name, move || pack(&executable)).await
    }
}

/// Removes the images of other executables than the one that is named `own`, each once no pod of the node asks for it and no
/// container runs from it. Ends when there are none.
pub(crate) async fn retire_others(own: String, images: Images, pods: Cache<Pod>, cancel: CancellationToken) {
    let looks = async {
        pods.synced().await;
        let mut pause = RETIRE;
        loop {
            tokio::time::sleep(pause).await;
            match retire_unused(&own, &images, &pods).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "earlier images of mini cannot be removed now"),
            }
            pause = (pause * 2).min(RETIRE_MAX);
        }
    };
    let _ = cancel.run_until_cancelled(looks).await;
}

/// How many had to stay.
async fn retire_unused(own: &str, images: &Images, pods: &Cache<Pod>) -> Result<usize, Error> {
    let all = images.list().await?;
    let earlier: Vec<(&ImageInfo, &String)> = all
        .iter()
        .flat_map(|image| image.tags.iter().map(move |tag| (image, tag)))
        .filter(|(_, tag)| is_earlier(tag, own))
        .collect();
    if earlier.is_empty() {
        return Ok(0);
    }
    let mut used = images.of_containers().await?;
    for pod in pods.list() {
        let spec = pod.spec.iter();
        let asked = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        used.extend(asked.filter_map(|container| container.image.clone()));
    }
    let mut kept = 0;
    for (image, tag) in earlier {
        if used.contains(tag) || used.contains(&image.id) {
            kept += 1;
            continue;
        }
        images.remove(tag).await?;
        tracing::info!(image = %tag, "removed the image of an earlier mini");
    }
    Ok(kept)
}

fn is_earlier(tag: &str, own: &str) -> bool {
    tag.starts_with(REPOSITORY) && tag != own
}

fn file_blob(path: &Path) -> io::Result<Blob> {
    let len = fs::metadata(path)?.len();
    Ok(Blob { parts: vec![Part::File { path: Arc::new(path.to_owned()), offset: 0, len }] })
}

fn pack(executable: &Path) -> io::Result<Packed> {
    let mut layer = file_blob(executable)?;
    let mut header = tar::Header::new_gnu();
    header.set_path("mini")?;
    header.set_size(layer.len());
    header.set_mode(0o755);
    header.set_cksum();
    let padding = usize::try_from(layer.len().wrapping_neg() % 512).unwrap_or(0);
    layer.parts.insert(0, Part::Bytes(Arc::new(header.as_bytes().to_vec())));
    // The last file's padding and the two empty blocks that end a tar.
    layer.parts.push(Part::Bytes(Arc::new(vec![0; padding + 1024])));

    let diff_id = layer.digest()?;
    let config = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/mini"], "Cmd": ["pause"], "Env": ["PATH=/"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "mini"}],
    })
    .to_string()
    .into_bytes();
    let describe = |media_type: &str, digest: String, len: u64| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size: i64::try_from(len).unwrap_or(i64::MAX),
        ..Default::default()
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: Some(describe(CONFIG, digest_of(&config), config.len() as u64)),
        layers: vec![describe(LAYER, diff_id.clone(), layer.len())],
        ..Default::default()
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let target = describe(MANIFEST, digest_of(&manifest), manifest.len() as u64);
    let blobs = vec![
        (diff_id, layer),
        (digest_of(&config), Blob::bytes(config)),
        (target.digest.clone(), Blob::bytes(manifest)),
    ];
    Ok(Packed { target, blobs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn only_images_of_other_executables_are_earlier() {
        let own = "mini.local/mini:22";
        for (tag, earlier) in [(own, false), ("mini.local/mini:11", true), ("docker.io/library/mini:11", false)] {
            assert_eq!(is_earlier(tag, own), earlier, "{tag}");
        }
    }

    #[test]
    fn the_layer_is_a_tar_of_the_executable() {
        let path = std::env::temp_dir().join(format!("mini-self-{}", std::process::id()));
        fs::write(&path, vec![7; 700]).unwrap();
        let packed = pack(&path).unwrap();
        let layer = packed.blobs[0].1.read().unwrap();
        assert_eq!(digest_of(&layer), packed.blobs[0].0);
        let mut archive = tar::Archive::new(layer.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("mini"));
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![7; 700]);
        fs::remove_file(path).unwrap();
    }
}
