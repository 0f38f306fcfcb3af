//! The checks of the pod security standards: one row each, with what changed from version to version.

use super::{Level, Standard, Version};
use mini_api::{Meta, Value};
use std::collections::BTreeSet;

/// What is wrong in short, and in detail.
type Violation = (&'static str, String);
type Judge = fn(&Pod<'_>) -> Option<Violation>;

struct Check {
    /// Upstream's name.
    id: &'static str,
    level: Level,
    /// The minor version from which each form holds, in order.
    forms: &'static [(u32, Judge)],
}

const fn baseline(id: &'static str, forms: &'static [(u32, Judge)]) -> Check {
    Check { id, level: Level::Baseline, forms }
}

const fn restricted(id: &'static str, forms: &'static [(u32, Judge)]) -> Check {
    Check { id, level: Level::Restricted, forms }
}

/// Baseline's rows first, both in the order of their names: messages list them so.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, default_capabilities)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_paths)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts)]),
    baseline("privileged", &[(0, privileged)]),
    baseline("procMount", &[(0, proc_mount), (35, |pod| pod.without_own_users(proc_mount))]),
    baseline("seLinuxOptions", &[(0, |pod| selinux(pod, &SELINUX[..3])), (31, |pod| selinux(pod, &SELINUX))]),
    baseline("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp_allowed)]),
    baseline(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, &SYSCTLS[..5])),
            (27, |pod| sysctls(pod, &SYSCTLS[..6])),
            (29, |pod| sysctls(pod, &SYSCTLS[..10])),
            (32, |pod| sysctls(pod, &SYSCTLS[..12])),
            (37, |pod| sysctls(pod, &SYSCTLS)),
        ],
    ),
    baseline("windowsHostProcess", &[(0, host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, escalation), (25, |pod| pod.unless_windows(escalation))]),
    restricted(
        "capabilities_restricted",
        &[(22, dropped_capabilities), (25, |pod| pod.unless_windows(dropped_capabilities))],
    ),
    restricted("procMount_restricted", &[(35, proc_mount)]),
    restricted("restrictedVolumes", &[(0, volume_types)]),
    restricted("runAsNonRoot", &[(0, non_root), (35, |pod| pod.without_own_users(non_root))]),
    restricted("runAsUser", &[(23, user), (35, |pod| pod.without_own_users(user))]),
    restricted("seccompProfile_restricted", &[(19, seccomp_set), (25, |pod| pod.unless_windows(seccomp_set))]),
];

/// A check of the baseline that is not asked any more where the restricted one beside it is.
const REPLACED: [(&str, &str); 4] = [
    ("capabilities_baseline", "capabilities_restricted"),
    ("procMount", "procMount_restricted"),
    ("hostPathVolumes", "restrictedVolumes"),
    ("seccompProfile_baseline", "seccompProfile_restricted"),
];

const SELINUX: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Volumes that need no trust in who asks for them.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What is wrong with a pod, or a template of one.
pub(super) fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let judge = |check: &Check| {
        let form = check.forms.iter().rev().find(|(from, _)| *from <= minor);
        form.filter(|_| check.level <= standard.level).map(|(_, judge)| *judge)
    };
    let is_replaced = |id: &str| {
        let by = REPLACED.iter().find(|(old, _)| *old == id).map(|(_, new)| *new);
        CHECKS.iter().any(|check| Some(check.id) == by && judge(check).is_some())
    };
    let pod =
        Pod { metadata: pod.get("metadata").unwrap_or(&Value::Null), spec: pod.get("spec").unwrap_or(&Value::Null) };
    CHECKS.iter().filter(|check| !is_replaced(check.id)).filter_map(|check| judge(check)?(&pod)).collect()
}

/// All reasons, each with its details.
pub(super) fn details(violations: &[Violation]) -> String {
    let told = |(reason, detail): &Violation| format!("{reason} ({detail})");
    violations.iter().map(told).collect::<Vec<_>>().join(", ")
}

pub(super) fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|(reason, _)| *reason).collect::<Vec<_>>().join(", ")
}

struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn is_true(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["/initContainers", "/containers", "/ephemeralContainers"].into_iter().flat_map(move |list| items(spec, list))
    }

    /// The names of the containers that are `bad`.
    fn containers_that(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| bad(container)).map(|container| text(container, "/name")).collect()
    }

    /// Who of the pod and its containers has a security context that is `bad`: `pod and container "c"`.
    fn setters(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Option<String> {
        let pod = self.spec.get("securityContext").is_some_and(&mut bad).then(|| "pod".to_owned());
        let containers = self.containers_that(|container| container.get("securityContext").is_some_and(&mut bad));
        let all: Vec<_> = pod.into_iter().chain(named(&containers)).collect();
        (!all.is_empty()).then(|| all.join(" and "))
    }

    fn unless_windows(&self, judge: Judge) -> Option<Violation> {
        if text(self.spec, "/os/name") == "windows" { None } else { judge(self) }
    }

    /// Root in a user namespace of the pod's own is nobody outside of it.
    fn without_own_users(&self, judge: Judge) -> Option<Violation> {
        if self.spec.get("hostUsers").and_then(Value::as_bool) == Some(false) { None } else { judge(self) }
    }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize, one: &'static str, many: &'static str) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`; `None` of none.
fn named(containers: &[&str]) -> Option<String> {
    let what = plural(containers.len(), "container", "containers");
    (!containers.is_empty()).then(|| format!("{what} {}", quoted(containers)))
}

fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let may =
        |c: &Value| c.pointer("/securityContext/allowPrivilegeEscalation").and_then(Value::as_bool) != Some(false);
    let who = named(&pod.containers_that(may))?;
    Some((
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    ))
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let who = pod.setters(|context| {
        let Some(profile) = context.get("appArmorProfile").filter(|profile| !profile.is_null()) else { return false };
        let kind = profile.text(&["type"]);
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            types.insert(kind.to_owned());
        }
        bad
    });
    let annotations = pod.metadata.get("annotations").and_then(Value::as_object);
    let mut odd: Vec<String> = (annotations.into_iter().flatten())
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    odd.sort();
    let what = (!odd.is_empty()).then(|| plural(odd.len(), "annotation", "annotations").to_owned());
    let setters = who.into_iter().chain(what).collect::<Vec<_>>();
    let values: Vec<_> = types.into_iter().chain(odd).collect();
    (!setters.is_empty()).then(|| {
        let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
        (reason, format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values)))
    })
}

/// The containers that add capabilities that are not `allowed`, and those.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<String> {
    let mut odd = BTreeSet::new();
    let who = named(&pod.containers_that(|container| {
        let adds = items(container, "/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        let bad: Vec<&'a str> = adds.filter(|capability| !allowed.contains(capability)).collect();
        odd.extend(bad.iter().copied());
        !bad.is_empty()
    }))?;
    Some(format!("{who} must not include {} in securityContext.capabilities.add", quoted(odd)))
}

fn default_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    Some(("non-default capabilities", added(pod, &CAPABILITIES)?))
}

fn dropped_capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let keeps =
        |c: &Value| !items(c, "/securityContext/capabilities/drop").iter().any(|capability| capability == "ALL");
    let who = named(&pod.containers_that(keeps));
    let keep = who.map(|who| format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    let told: Vec<_> = keep.into_iter().chain(added(pod, &["NET_BIND_SERVICE"])).collect();
    (!told.is_empty()).then(|| ("unrestricted capabilities", told.join("; ")))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|field| is_true(pod.spec, &format!("/{field}")));
    let shared: Vec<_> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| ("host namespaces", shared.join(", ")))
}

fn host_paths(pod: &Pod<'_>) -> Option<Violation> {
    let volumes =
        items(pod.spec, "/volumes").iter().filter(|volume| volume.get("hostPath").is_some_and(|v| !v.is_null()));
    let names: Vec<_> = volumes.map(|volume| text(volume, "/name")).collect();
    let what = plural(names.len(), "volume", "volumes");
    (!names.is_empty()).then(|| ("hostPath volumes", format!("{what} {}", quoted(&names))))
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.containers_that(|container| {
        let taken = items(container, "/ports").iter().filter_map(|port| port.get("hostPort").and_then(Value::as_i64));
        let taken: Vec<_> = taken.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        ports.extend(taken.iter().cloned());
        !taken.is_empty()
    });
    let (who, use_, what) =
        (named(&containers)?, plural(containers.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    Some(("hostPort", format!("{who} {use_} {what} {ports}")))
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let mut hosts = BTreeSet::new();
    let mut containers = pod.containers_that(|container| {
        let places =
            HANDLERS.iter().flat_map(|handler| ["httpGet", "tcpSocket"].map(|how| format!("{handler}/{how}/host")));
        let named: Vec<_> = places.map(|place| text(container, &place)).filter(|host| !host.is_empty()).collect();
        hosts.extend(named.iter().copied());
        !named.is_empty()
    });
    containers.sort_unstable();
    let (who, use_) = (named(&containers)?, plural(containers.len(), "uses", "use"));
    let what = plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts");
    Some(("probe or lifecycle host", format!("{who} {use_} {what} {}", quoted(hosts))))
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let who = named(&pod.containers_that(|container| is_true(container, "/securityContext/privileged")))?;
    Some(("privileged", format!("{who} must not set securityContext.privileged=true")))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let who = named(&pod.containers_that(|container| {
        let kind = container.pointer("/securityContext/procMount").and_then(Value::as_str);
        let odd = kind.filter(|kind| *kind != "Default");
        types.extend(odd);
        odd.is_some()
    }))?;
    Some(("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(types))))
}

fn selinux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let who = pod.setters(|context| {
        let Some(options) = context.get("seLinuxOptions") else { return false };
        let of = |field: &str| options.text(&[field]);
        let odd = !of("type").is_empty() && !allowed.contains(&of("type"));
        if odd {
            types.insert(of("type").to_owned());
        }
        user |= !of("user").is_empty();
        role |= !of("role").is_empty();
        odd || !of("user").is_empty() || !of("role").is_empty()
    })?;
    let what = plural(types.len(), "type", "types");
    let types = (!types.is_empty()).then(|| format!("{what} {}", quoted(types)));
    let told = [types, user.then(|| "user may not be set".to_owned()), role.then(|| "role may not be set".to_owned())];
    let told: Vec<_> = told.into_iter().flatten().collect();
    Some(("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", told.join("; "))))
}

/// Of versions in which seccomp profiles were annotations.
fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let of = |key: String| {
        let value = pod.metadata.get("annotations")?.get(&key)?.as_str()?;
        let fine = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        (!fine).then(|| format!("{key}={value:?}"))
    };
    let containers =
        pod.containers().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "/name")));
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(containers);
    let odd: BTreeSet<_> = keys.filter_map(of).collect();
    let what = plural(odd.len(), "annotation", "annotations");
    let told = odd.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    (!odd.is_empty()).then(|| ("seccompProfile", format!("forbidden {what} {told}")))
}

/// The type of a security context's profile.
fn seccomp(context: &Value) -> Option<&str> {
    context.get("seccompProfile").filter(|profile| !profile.is_null()).map(|profile| profile.text(&["type"]))
}

fn is_confined(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp_allowed(pod: &Pod<'_>) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let who = pod.setters(|context| {
        let odd = seccomp(context).filter(|kind| !is_confined(kind));
        types.extend(odd);
        odd.is_some()
    })?;
    Some(("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(types))))
}

fn seccomp_set(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(violation) = seccomp_allowed(pod) {
        return Some(violation);
    }
    let set = |value: &Value| value.get("securityContext").and_then(seccomp).is_some();
    if set(pod.spec) {
        return None;
    }
    let who = named(&pod.containers_that(|container| !set(container)))?;
    let told =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    Some(("seccompProfile", told))
}

fn sysctls(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let names = items(pod.spec, "/securityContext/sysctls").iter().map(|sysctl| text(sysctl, "/name"));
    let odd: Vec<_> = names.filter(|name| !allowed.contains(name)).collect();
    (!odd.is_empty()).then(|| ("forbidden sysctls", odd.join(", ")))
}

fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let who = pod.setters(|context| is_true(context, "/windowsOptions/hostProcess"))?;
    Some(("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}

fn volume_types(pod: &Pod<'_>) -> Option<Violation> {
    let source = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten();
        fields.filter(|(field, value)| *field != "name" && !value.is_null()).map(|(field, _)| field.clone()).next()
    };
    let mut types = BTreeSet::new();
    let volumes: Vec<_> = (items(pod.spec, "/volumes").iter())
        .filter(|volume| {
            let source = source(volume).unwrap_or_else(|| "unknown".to_owned());
            let odd = !VOLUMES.contains(&source.as_str());
            if odd {
                types.insert(source);
            }
            odd
        })
        .map(|volume| text(volume, "/name"))
        .collect();
    let (what, use_) = (plural(volumes.len(), "volume", "volumes"), plural(volumes.len(), "uses", "use"));
    let kind = plural(types.len(), "restricted volume type", "restricted volume types");
    let told = format!("{what} {} {use_} {kind} {}", quoted(&volumes), quoted(types));
    (!volumes.is_empty()).then_some(("restricted volume types", told))
}

fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    let of = |value: &Value| value.pointer("/securityContext/runAsNonRoot").and_then(Value::as_bool);
    if let Some(who) = pod.setters(|context| context.get("runAsNonRoot").and_then(Value::as_bool) == Some(false)) {
        return Some(("runAsNonRoot != true", format!("{who} must not set securityContext.runAsNonRoot=false")));
    }
    if of(pod.spec) == Some(true) {
        return None;
    }
    let who = named(&pod.containers_that(|container| of(container).is_none()))?;
    Some(("runAsNonRoot != true", format!("pod or {who} must set securityContext.runAsNonRoot=true")))
}

fn user(pod: &Pod<'_>) -> Option<Violation> {
    let who = pod.setters(|context| context.get("runAsUser").and_then(Value::as_i64) == Some(0))?;
    Some(("runAsUser=0", format!("{who} must not set runAsUser=0")))
}
