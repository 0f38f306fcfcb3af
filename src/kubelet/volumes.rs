//! The volumes of a pod, under `<root>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`.
//!
//! Everything here is idempotent: set-up may run again at any time, which is how live updates reach running containers.
//! Invariant: tear-down unmounts before it deletes, and deletes nothing below a mount that would not go.

mod atomic;
pub(crate) mod mounts;
mod owner;
mod payload;
pub(crate) mod tear_down;
mod tokens;

pub(crate) use tokens::Tokens;

use crate::Config;
use crate::cluster::{Cluster, Reference};
use crate::pod;
use k8s_openapi::api::core::v1::{Pod, Volume};
use mini_api::quantity::Quantity;
use rustix::mount::MountFlags;
use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a set-up volume is.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

pub(crate) struct Context<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) config: &'a Config,
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ips: &'a [String],
    pub(crate) tokens: &'a Tokens,
}

pub(crate) fn pod_dir(config: &Config, pod: &Pod) -> PathBuf {
    config.root_dir.join("pods").join(pod::uid(pod))
}

/// The ConfigMaps and Secrets whose changes reach the pod's volumes.
pub(crate) fn references(pod: &Pod) -> BTreeSet<Reference> {
    let namespace = pod::namespace(pod);
    let config_map = |name: &str| Reference::ConfigMap { namespace: namespace.to_owned(), name: name.to_owned() };
    let secret = |name: &str| Reference::Secret { namespace: namespace.to_owned(), name: name.to_owned() };
    let mut out = BTreeSet::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        out.extend(volume.config_map.iter().map(|c| config_map(&c.name)));
        out.extend(volume.secret.iter().filter_map(|s| s.secret_name.as_deref()).map(secret));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            out.extend(source.config_map.iter().map(|c| config_map(&c.name)));
            out.extend(source.secret.iter().map(|s| secret(&s.name)));
        }
    }
    out
}

/// Sets up every volume, whatever becomes of the others; the error, the first, is the message of a `FailedMount` event.
pub(crate) async fn set_up(context: &Context<'_>) -> Result<HashMap<String, Ready>, String> {
    let mut out = HashMap::new();
    let mut failed = None;
    for volume in context.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        match one(context, volume).await {
            Ok(ready) => {
                out.insert(volume.name.clone(), ready);
            }
            Err(e) => {
                failed.get_or_insert_with(|| format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name));
            }
        }
    }
    failed.map_or(Ok(out), Err)
}

async fn one(context: &Context<'_>, volume: &Volume) -> Result<Ready, String> {
    let plugin_dir = |plugin: &str| {
        pod_dir(context.config, context.pod).join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name)
    };
    let fs_group = context.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.fs_group);
    if let Some(source) = &volume.empty_dir {
        let path = plugin_dir("empty-dir");
        let fresh = !path.exists();
        make_dir(&path, 0o777)?;
        let mode = source.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o777);
        if source.medium.as_deref() == Some("Memory") {
            let size = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.value());
            mount_tmpfs(&path, size, mode)?;
        }
        if fresh {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(text)?;
            if let Some(group) = fs_group {
                owner::apply(&path, group, false).map_err(text)?;
            }
        }
        return Ok(Ready { path, read_only: false });
    }
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        host_path(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(Ready { path, read_only: false });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let (path, read_only) = claimed(context, &source.claim_name).await?;
        return Ok(Ready { path, read_only: read_only || source.read_only.unwrap_or(false) });
    }
    let Some((plugin, files)) = payload::of_volume(context, volume).await? else {
        return Err("this kind of volume is not supported".to_owned());
    };
    let path = plugin_dir(plugin);
    make_dir(&path, 0o755)?;
    if plugin == "secret" || plugin == "projected" {
        // Secrets stay off the disk.
        mount_tmpfs(&path, None, 0o755)?;
    }
    atomic::write(&path, &files, fs_group).map_err(text)?;
    Ok(Ready { path, read_only: true })
}

async fn claimed(context: &Context<'_>, name: &str) -> Result<(PathBuf, bool), String> {
    let namespace = pod::namespace(context.pod);
    let claim = context.cluster.claim(namespace, name).await.map_err(|e| e.to_string())?;
    let bound = claim.spec.and_then(|s| s.volume_name).filter(|v| !v.is_empty());
    let bound = bound.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" is not bound"))?;
    let volume = context.cluster.volume(&bound).await.map_err(|e| e.to_string())?;
    let spec = volume.spec.unwrap_or_default();
    let only_read = spec.access_modes.as_deref().is_some_and(|m| m == ["ReadOnlyMany"]);
    if let Some(source) = &spec.host_path {
        let path = PathBuf::from(&source.path);
        host_path(&path, source.type_.as_deref().unwrap_or("DirectoryOrCreate"))?;
        return Ok((path, only_read));
    }
    if let Some(source) = &spec.local {
        let path = PathBuf::from(&source.path);
        host_path(&path, "Directory")?;
        return Ok((path, only_read));
    }
    Err(format!("PersistentVolume {bound} is of a kind that is not supported"))
}

/// Checks, and for the `…OrCreate` types makes, a path of the host.
fn host_path(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    match kind {
        "DirectoryOrCreate" if !path.exists() => return make_dir(path, 0o755),
        "FileOrCreate" if !path.exists() => {
            return fs::OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(text);
        }
        "" => {
            // Upstream makes a missing folder, as docker did.
            return if path.exists() { Ok(()) } else { make_dir(path, 0o755) };
        }
        _ => {}
    }
    let found = fs::metadata(path)
        .map_err(|_| format!("hostPath type check failed: {shown} is not {}", words(kind)))?
        .file_type();
    let fits = match kind {
        "Directory" | "DirectoryOrCreate" => found.is_dir(),
        "File" | "FileOrCreate" => found.is_file(),
        "Socket" => found.is_socket(),
        "CharDevice" => found.is_char_device(),
        "BlockDevice" => found.is_block_device(),
        _ => return Err(format!("{kind} is an invalid volume type")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not {}", words(kind))) }
}

fn words(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "a directory",
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        _ => "a block device",
    }
}

pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(text)
}

fn mount_tmpfs(path: &Path, size: Option<i64>, mode: u32) -> Result<(), String> {
    if mini_sys::mounts::is_mount_point(path) {
        return Ok(());
    }
    let mut data = format!("mode={mode:o}");
    if let Some(size) = size.filter(|s| *s > 0) {
        data = format!("{data},size={size}");
    }
    let data = CString::new(data).map_err(text)?;
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|e| text(io::Error::from(e)))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
