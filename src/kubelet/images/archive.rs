//! Reading image archives: OCI layout tars and what `docker save` writes, without unpacking them.

use super::content::{Blob, Part, digest_of};
use super::{Descriptor, Error, Manifest, Source};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// JSON documents of an archive are small; more than this is a damaged or hostile file.
const DOCUMENT_MAX: u64 = 16 << 20;

/// An archive with its table of contents read.
pub(super) struct Archive {
    file: Arc<PathBuf>,
    /// Deleted with the archive: a decompressed copy.
    _copy: Option<Copy>,
    entries: HashMap<String, (u64, u64)>,
    /// Blobs of a docker archive, which names files and not digests.
    made: parking_lot::Mutex<HashMap<String, Blob>>,
}

struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// One image of an archive.
pub(super) struct ArchivedImage {
    pub(super) names: Vec<String>,
    pub(super) target: Descriptor,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        let failed = |e| Error::Read(shown.clone(), e);
        let mut magic = [0; 2];
        File::open(path).and_then(|mut f| f.read_exact(&mut magic)).map_err(failed)?;
        let (file, copy) = if magic == [0x1f, 0x8b] {
            let copy = decompress(path).map_err(failed)?;
            (copy.0.clone(), Some(copy))
        } else {
            (path.to_owned(), None)
        };
        let entries = table_of_contents(&file).map_err(failed)?;
        if !entries.contains_key("index.json") && !entries.contains_key("manifest.json") {
            return Err(Error::NotAnArchive(shown));
        }
        Ok(Self { file: Arc::new(file), _copy: copy, entries, made: parking_lot::Mutex::default() })
    }

    pub(super) fn images(&self) -> Result<Vec<ArchivedImage>, Error> {
        if self.entries.contains_key("index.json") {
            let index: Manifest = self.document("index.json")?;
            let named: Vec<ArchivedImage> = index
                .manifests
                .into_iter()
                .map(|target| ArchivedImage { names: names_of(&target), target })
                .filter(|image| !image.names.is_empty())
                .collect();
            if !named.is_empty() {
                return Ok(merged(named));
            }
            if !self.entries.contains_key("manifest.json") {
                return Err(Error::Nameless);
            }
        }
        let saved: Vec<Saved> = self.document("manifest.json")?;
        saved.into_iter().map(|s| self.saved_image(s)).collect()
    }

    fn saved_image(&self, saved: Saved) -> Result<ArchivedImage, Error> {
        let describe = |name: &str, media_type: &str| {
            let blob = self.entry(name)?;
            let digest = blob.digest().map_err(|e| Error::Read(name.to_owned(), e))?;
            let size = i64::try_from(blob.len()).unwrap_or(i64::MAX);
            self.made.lock().insert(digest.clone(), blob);
            Ok::<_, Error>(Descriptor { media_type: media_type.to_owned(), digest, size, ..Default::default() })
        };
        let mut manifest = Manifest { schema_version: 2, media_type: MANIFEST.to_owned(), ..Default::default() };
        manifest.config = Some(describe(&saved.config, CONFIG)?);
        for layer in &saved.layers {
            let mut start = [0; 2];
            let gzipped = self.entry(layer)?.read_start(&mut start).is_ok() && start == [0x1f, 0x8b];
            let media_type = if gzipped { format!("{LAYER}.gzip") } else { LAYER.to_owned() };
            manifest.layers.push(describe(layer, &media_type)?);
        }
        let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::Damaged(e.to_string()))?;
        let digest = digest_of(&bytes);
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.made.lock().insert(digest.clone(), Blob::bytes(bytes));
        let target = Descriptor { media_type: MANIFEST.to_owned(), digest, size, ..Default::default() };
        Ok(ArchivedImage { names: saved.repo_tags.unwrap_or_default(), target })
    }

    fn entry(&self, name: &str) -> Result<Blob, Error> {
        let (offset, len) = *self.entries.get(name).ok_or_else(|| Error::Damaged(format!("{name} is missing")))?;
        Ok(Blob { parts: vec![Part::File { path: Arc::clone(&self.file), offset, len }] })
    }

    fn document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let blob = self.entry(name)?;
        if blob.len() > DOCUMENT_MAX {
            return Err(Error::Damaged(format!("{name} is {} bytes long", blob.len())));
        }
        let bytes = blob.read().map_err(|e| Error::Read(name.to_owned(), e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Damaged(format!("{name}: {e}")))
    }
}

impl Source for Archive {
    fn blob(&self, digest: &str) -> Option<Blob> {
        if let Some(made) = self.made.lock().get(digest) {
            return Some(made.clone());
        }
        let (algorithm, hex) = digest.split_once(':')?;
        self.entry(&format!("blobs/{algorithm}/{hex}")).ok()
    }
}

fn names_of(target: &Descriptor) -> Vec<String> {
    let get = |key: &str| target.annotations.get(key).filter(|n| !n.is_empty()).cloned();
    let full = get("io.containerd.image.name");
    // A bare tag is no name.
    let reference = get("org.opencontainers.image.ref.name").filter(|n| n.contains(['/', ':']));
    full.or(reference).into_iter().collect()
}

/// Two names of one image come as two descriptors of one digest.
fn merged(images: Vec<ArchivedImage>) -> Vec<ArchivedImage> {
    let mut out: Vec<ArchivedImage> = Vec::new();
    for image in images {
        match out.iter_mut().find(|i| i.target.digest == image.target.digest) {
            Some(same) => same.names.extend(image.names),
            None => out.push(image),
        }
    }
    out
}

fn table_of_contents(file: &Path) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut entries = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(File::open(file)?);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Some(name) = clean(&entry.path()?) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() || kind.is_contiguous() {
            entries.insert(name, (entry.raw_file_position(), entry.size()));
        } else if kind.is_symlink() || kind.is_hard_link() {
            // Old `docker save` links a layer that two images share.
            let Some(target) = entry.link_name()? else { continue };
            let base = if kind.is_symlink() { Path::new(&name).parent().map(Path::to_owned) } else { None };
            if let Some(target) = clean(&base.unwrap_or_default().join(target)) {
                links.push((name, target));
            }
        }
    }
    for (name, target) in links {
        if let Some(found) = entries.get(&target).copied() {
            entries.insert(name, found);
        }
    }
    Ok(entries)
}

/// A relative path without `.` and `..`; `None` for one that leaves the archive.
fn clean(path: &Path) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(p) => parts.push(p.to_str()?.to_owned()),
            std::path::Component::ParentDir => {
                parts.pop()?;
            }
            _ => {}
        }
    }
    Some(parts.join("/"))
}

fn decompress(path: &Path) -> io::Result<Copy> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = format!(".{}.{}.tar", path.file_name().unwrap_or_default().to_string_lossy(), std::process::id());
    let copy = Copy(dir.join(name));
    let mut out = File::create(&copy.0)?;
    io::copy(&mut flate2::read::MultiGzDecoder::new(io::BufReader::new(File::open(path)?)), &mut out)?;
    Ok(copy)
}

/// Reads `len` bytes at `offset`.
pub(super) fn read_at(path: &Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mini-archive-{}-{}", std::process::id(), files.len()));
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    #[test]
    fn a_docker_archive_becomes_a_manifest() {
        let saved = br#"[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["l/layer.tar"]}]"#;
        let path = tar_of(&[("manifest.json", saved), ("c.json", b"{}"), ("l/layer.tar", b"layer")]);
        let archive = Archive::open(&path).unwrap();
        let images = archive.images().unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].names, ["a:1", "b:2"]);
        let manifest: Manifest =
            serde_json::from_slice(&archive.blob(&images[0].target.digest).unwrap().read().unwrap()).unwrap();
        assert_eq!(archive.blob(&manifest.layers[0].digest).unwrap().read().unwrap(), b"layer");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn other_tars_are_refused() {
        let path = tar_of(&[("x", b"y")]);
        assert!(matches!(Archive::open(&path), Err(Error::NotAnArchive(_))));
        std::fs::remove_file(path).unwrap();
    }
}
