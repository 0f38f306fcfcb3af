//! The sandbox configuration of a pod.

use crate::{Config, cgroups, dns, labels, security};
use k8s_cri::v1::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use k8s_openapi::api::core::v1::Pod;
use std::path::PathBuf;

/// `<logs>/<namespace>_<name>_<uid>`.
pub(crate) fn log_dir(config: &Config, pod: &Pod) -> PathBuf {
    config.pod_logs_dir.join(format!("{}_{}_{}", super::namespace(pod), super::name(pod), super::uid(pod)))
}

pub(crate) fn hostname(config: &Config, pod: &Pod) -> String {
    if super::host_network(pod) {
        return config.node_name.clone();
    }
    let own = pod.spec.as_ref().and_then(|s| s.hostname_override.clone().or_else(|| s.hostname.clone()));
    let mut name = own.filter(|h| !h.is_empty()).unwrap_or_else(|| super::name(pod).to_owned());
    if name.len() > 63 {
        name.truncate(63);
        name = name.trim_end_matches(['-', '.']).to_owned();
    }
    name
}

pub(crate) fn config(config: &Config, pod: &Pod, attempt: u32) -> PodSandboxConfig {
    let sysctls = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|c| c.sysctls.clone());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: super::name(pod).to_owned(),
            uid: super::uid(pod).to_owned(),
            namespace: super::namespace(pod).to_owned(),
            attempt,
        }),
        // The host's network comes with the host's name.
        hostname: if super::host_network(pod) { String::new() } else { hostname(config, pod) },
        log_directory: log_dir(config, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns::of_pod(config, pod)),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroups::parent(&config.instance, pod),
            security_context: Some(security::of_sandbox(pod, &config.root_dir)),
            sysctls: sysctls.unwrap_or_default().into_iter().map(|s| (s.name, s.value)).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if super::host_network(pod) {
        return Vec::new();
    }
    let containers = super::main_containers(pod).iter().chain(super::init_containers(pod));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|p| p.host_port.unwrap_or(0) != 0)
        .map(|p| PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => Protocol::Udp.into(),
                Some("SCTP") => Protocol::Sctp.into(),
                _ => Protocol::Tcp.into(),
            },
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
