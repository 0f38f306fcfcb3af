//! `securityContext` of pods and containers, as CRI takes it.

use k8s_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile};
use std::path::Path;

/// What the runtime hides from an unprivileged container.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec.as_ref();
    let node = |on: Option<bool>, otherwise: NamespaceMode| -> i32 {
        if on.unwrap_or(false) { NamespaceMode::Node.into() } else { otherwise.into() }
    };
    let shared = spec.and_then(|s| s.share_process_namespace).unwrap_or(false);
    NamespaceOption {
        network: node(spec.and_then(|s| s.host_network), NamespaceMode::Pod),
        pid: node(spec.and_then(|s| s.host_pid), if shared { NamespaceMode::Pod } else { NamespaceMode::Container }),
        ipc: node(spec.and_then(|s| s.host_ipc), NamespaceMode::Pod),
        ..Default::default()
    }
}

pub(crate) fn of_sandbox(pod: &Pod, root: &Path) -> LinuxSandboxSecurityContext {
    let spec = pod.spec.as_ref();
    let context = spec.and_then(|s| s.security_context.clone()).unwrap_or_default();
    let privileged = spec
        .iter()
        .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()))
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_group.filter(|_| context.run_as_user.is_some()).map(|value| Int64Value { value }),
        supplemental_groups: groups(pod),
        privileged,
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        seccomp: Some(match &context.seccomp_profile {
            // What holds the namespaces is this executable, asleep, and out of everyone's reach: a filter for it keeps no
            // one from anything, and making one takes runc longer than all else but the process itself.
            _ if !shared_processes(pod) => unconfined(),
            Some(profile) => seccomp(profile, root),
            None => SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() },
        }),
        ..Default::default()
    }
}

/// Whether containers see the process that holds the pod's namespaces.
fn shared_processes(pod: &Pod) -> bool {
    let on = |field: Option<bool>| field.unwrap_or(false);
    pod.spec.as_ref().is_some_and(|spec| on(spec.share_process_namespace) || on(spec.host_pid))
}

fn unconfined() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..Default::default() }
}

pub(crate) fn groups(pod: &Pod) -> Vec<i64> {
    let context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let mut out: Vec<i64> = context.and_then(|c| c.fs_group).into_iter().collect();
    for group in context.and_then(|c| c.supplemental_groups.clone()).unwrap_or_default() {
        if !out.contains(&group) {
            out.push(group);
        }
    }
    out
}

/// `image` is the user of the image: a number, or a name, or neither.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    image: (Option<i64>, &str),
    root: &Path,
) -> LinuxContainerSecurityContext {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let group = own.run_as_group.or(of_pod.run_as_group);
    // CRI takes no group without a user: it is the image's then, or root.
    let (number, name) = image;
    let of_image = group.and(number.or(name.is_empty().then_some(0)));
    let user = own.run_as_user.or(of_pod.run_as_user).or(of_image);
    let profile_of_app_armor = own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref());
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_username: if user.is_none() && group.is_some() { name.to_owned() } else { String::new() },
        run_as_group: group.map(|value| Int64Value { value }),
        apparmor: profile_of_app_armor.filter(|_| !privileged).map(app_armor),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(match profile {
            Some(profile) if !privileged => seccomp(profile, root),
            _ => unconfined(),
        }),
        ..Default::default()
    }
}

/// `runAsNonRoot`: why the container may not start, if it may not.
pub(crate) fn non_root_violation(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Option<String> {
    let of_pod = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let own = container.security_context.as_ref();
    let wanted = own.and_then(|c| c.run_as_non_root).or_else(|| of_pod.and_then(|c| c.run_as_non_root));
    if wanted != Some(true) {
        return None;
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let whose = format!("(pod: \"{name}_{namespace}({uid})\", container: {})", container.name);
    match own.and_then(|c| c.run_as_user).or_else(|| of_pod.and_then(|c| c.run_as_user)) {
        Some(0) => Some(format!("container's runAsUser breaks non-root policy {whose}")),
        Some(_) => None,
        None if image_uid.is_some_and(|u| u != 0) => None,
        None if image_uid.is_none() && !image_user.is_empty() && image_user != "root" => Some(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {whose}"
        )),
        None => Some(format!("container has runAsNonRoot and image will run as root {whose}")),
    }
}

fn seccomp(profile: &SeccompProfile, root: &Path) -> SecurityProfile {
    let (kind, local) = match profile.type_.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => {
            let file = root.join("seccomp").join(profile.localhost_profile.as_deref().unwrap_or_default());
            (ProfileType::Localhost, file.to_string_lossy().into_owned())
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: local }
}

fn app_armor(profile: &AppArmorProfile) -> SecurityProfile {
    let kind = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    SecurityProfile { profile_type: kind.into(), localhost_ref: profile.localhost_profile.clone().unwrap_or_default() }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_group_comes_with_the_images_user() {
        let of = |context: serde_json::Value, image: (Option<i64>, &str)| {
            let spec = json!({"containers": [{"name": "c", "securityContext": context}]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let out = of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], image, Path::new("/"));
            (out.run_as_user.map(|u| u.value), out.run_as_username, out.run_as_group.map(|g| g.value))
        };
        let none = String::new;
        assert_eq!(of(json!({"runAsGroup": 7}), (None, "")), (Some(0), none(), Some(7)));
        assert_eq!(of(json!({"runAsGroup": 7}), (Some(5), "")), (Some(5), none(), Some(7)));
        assert_eq!(of(json!({"runAsGroup": 7}), (None, "web")), (None, "web".to_owned(), Some(7)));
        assert_eq!(of(json!({"runAsGroup": 7, "runAsUser": 3}), (Some(5), "")), (Some(3), none(), Some(7)));
        assert_eq!(of(json!({}), (Some(5), "")), (None, none(), None), "containerd takes the image's itself");
    }

    #[test]
    fn a_sandbox_is_filtered_where_containers_could_reach_into_it() {
        let kind = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            of_sandbox(&pod, Path::new("/")).seccomp.map(|profile| profile.profile_type())
        };
        assert_eq!(kind(json!({"containers": []})), Some(ProfileType::Unconfined));
        assert_eq!(kind(json!({"containers": [], "shareProcessNamespace": true})), Some(ProfileType::RuntimeDefault));
        assert_eq!(kind(json!({"containers": [], "hostPID": true})), Some(ProfileType::RuntimeDefault));
    }
}
