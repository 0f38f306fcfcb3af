//! What a container sees of the pod's volumes: mounts with subPath, the hosts file and the termination log.

use super::{Ready, pod_dir};
use crate::env::Env;
use crate::pod::{self, sandbox};
use crate::{Config, dns, env};
use k8s_cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::mount_bind;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// Of the machine's own hosts file no more is read.
const HOSTS_MAX: u64 = 1 << 20;

/// The mounts of a container; the error is the message of a `CreateContainerConfigError`.
pub(crate) fn of_container(
    config: &Config,
    pod: &Pod,
    container: &Container,
    volumes: &HashMap<String, Ready>,
    environment: &Env,
    pod_ips: &[String],
) -> Result<Vec<Mount>, String> {
    let mut out = Vec::new();
    let mut given: HashSet<&Path> = HashSet::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let ready = volumes.get(&wanted.name).ok_or_else(|| {
            format!("cannot find volume \"{}\" to mount into container \"{}\"", wanted.name, container.name)
        })?;
        given.insert(Path::new(&wanted.mount_path));
        let host_path = match sub_path(wanted, environment)? {
            Some(sub) => {
                let target = pod_dir(config, pod)
                    .join("volume-subpaths")
                    .join(&wanted.name)
                    .join(&container.name)
                    .join(index.to_string());
                bind_sub_path(&ready.path, &sub, &target).map_err(|e| {
                    format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {e}",
                        wanted.name, container.name
                    )
                })?;
                target
            }
            None => ready.path.clone(),
        };
        let container_path = if wanted.mount_path.starts_with('/') {
            wanted.mount_path.clone()
        } else {
            format!("/{}", wanted.mount_path)
        };
        out.push(Mount {
            container_path,
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: wanted.read_only.unwrap_or(false) || ready.read_only,
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer.into(),
                Some("Bidirectional") => MountPropagation::PropagationBidirectional.into(),
                _ => MountPropagation::PropagationPrivate.into(),
            },
            ..Default::default()
        });
    }
    if !given.contains(Path::new("/etc/hosts")) {
        let path = hosts_file(config, pod, pod_ips).map_err(|e| format!("cannot write the hosts file: {e}"))?;
        out.push(plain("/etc/hosts", &path));
    }
    if !given.contains(Path::new("/etc/resolv.conf")) {
        let path = dns::file(config, pod).map_err(|e| format!("cannot write resolv.conf: {e}"))?;
        let readonly = container.security_context.as_ref().and_then(|c| c.read_only_root_filesystem).unwrap_or(false);
        out.push(Mount { readonly, ..plain("/etc/resolv.conf", &path) });
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
        let dir = pod_dir(config, pod).join("containers").join(&container.name);
        let file = dir.join(format!("{:08x}", rand::random::<u32>()));
        let written = fs::create_dir_all(&dir)
            .and_then(|()| fs::write(&file, b""))
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o666)));
        written.map_err(|e| format!("cannot make the termination log: {e}"))?;
        out.push(plain(path, &file));
    }
    Ok(out)
}

fn plain(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

fn sub_path(wanted: &VolumeMount, environment: &Env) -> Result<Option<String>, String> {
    let sub = match (wanted.sub_path.as_deref(), wanted.sub_path_expr.as_deref()) {
        (_, Some(expression)) if !expression.is_empty() => {
            let missing = std::cell::Cell::new(None);
            let text = env::expand::expand(expression, |name| {
                let value = environment.get(name).map(str::to_owned);
                if value.is_none() {
                    missing.set(Some(name.to_owned()));
                }
                value
            });
            if let Some(name) = missing.take() {
                return Err(format!("missing value for \"{name}\""));
            }
            text
        }
        (Some(sub), _) if !sub.is_empty() => sub.to_owned(),
        _ => return Ok(None),
    };
    if sub.starts_with('/') {
        return Err(format!("error SubPath `{sub}` must not be an absolute path"));
    }
    if sub.split('/').any(|p| p == "..") {
        return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
    }
    Ok(Some(sub))
}

/// Binds what `sub` names inside `volume` to `target`. The kernel resolves it beneath the volume, so that a link a container
/// planted cannot lead out; a missing path is made a folder.
fn bind_sub_path(volume: &Path, sub: &str, target: &Path) -> io::Result<()> {
    let root = openat(CWD, volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let beneath = |path: &Path| {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let found = match beneath(Path::new(sub)) {
        Err(rustix::io::Errno::NOENT) => {
            make_beneath(&root, sub, &beneath)?;
            beneath(Path::new(sub))?
        }
        other => other?,
    };
    if mini_sys::mounts::is_mount_point(target) {
        rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(target)?;
    } else if !target.exists() {
        fs::write(target, b"")?;
    }
    mount_bind(&source, target)?;
    Ok(())
}

/// The folders are like the volume itself, as upstream makes them, so that whoever may use the volume may use them.
fn make_beneath(root: &OwnedFd, sub: &str, beneath: &dyn Fn(&Path) -> rustix::io::Result<OwnedFd>) -> io::Result<()> {
    let mode = Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode & 0o7777);
    let mut at = PathBuf::new();
    for part in Path::new(sub).components() {
        let Component::Normal(name) = part else { continue };
        let parent = if at.as_os_str().is_empty() { None } else { Some(beneath(&at)?) };
        let made = rustix::fs::mkdirat(parent.as_ref().unwrap_or(root), name, mode);
        at.push(name);
        match made {
            // Without the umask. Whatever has taken its place meanwhile is beneath the volume, or is not opened.
            Ok(()) => {
                let fresh = beneath(&at)?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", fresh.as_raw_fd()), mode)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The pod's `/etc/hosts`, written at each container's start as kubelets do.
fn hosts_file(config: &Config, pod: &Pod, pod_ips: &[String]) -> io::Result<PathBuf> {
    let path = pod_dir(config, pod).join("etc-hosts");
    let mut text = String::new();
    if pod::host_network(pod) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        if let Ok(file) = fs::File::open("/etc/hosts") {
            let mut host = Vec::new();
            file.take(HOSTS_MAX).read_to_end(&mut host)?;
            text.push_str(&String::from_utf8_lossy(&host));
        }
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let hostname = sandbox::hostname(config, pod);
        let spec = pod.spec.as_ref();
        let domain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
        for ip in pod_ips {
            let _ = match domain {
                Some(sub) => writeln!(
                    text,
                    "{ip}\t{hostname}.{sub}.{}.svc.{}\t{hostname}",
                    pod::namespace(pod),
                    config.cluster_domain
                ),
                None => writeln!(text, "{ip}\t{hostname}"),
            };
        }
    }
    let aliases = pod.spec.iter().flat_map(|s| s.host_aliases.iter().flatten());
    let mut first = true;
    for alias in aliases {
        if first {
            text.push_str("\n# Entries added by HostAliases.\n");
            first = false;
        }
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // In place: containers have the file itself mounted.
    if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_is_made_like_its_volume_and_stays_inside() {
        let dir = std::env::temp_dir().join(format!("mini-subpath-{}", std::process::id()));
        fs::create_dir_all(dir.join("volume")).unwrap();
        fs::set_permissions(dir.join("volume"), fs::Permissions::from_mode(0o2777)).unwrap();
        std::os::unix::fs::symlink("..", dir.join("volume/out")).unwrap();
        let root = openat(CWD, dir.join("volume"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let beneath = |path: &Path| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
        };
        make_beneath(&root, "a/b", &beneath).unwrap();
        for made in ["volume/a", "volume/a/b"] {
            assert_eq!(fs::metadata(dir.join(made)).unwrap().permissions().mode() & 0o7777, 0o2777, "{made}");
        }
        assert!(make_beneath(&root, "out/c", &beneath).is_err());
        assert!(!dir.join("c").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
