//! The kinds the fake server knows.

pub(super) struct Row {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
}

const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Row {
    Row { group, version, plural, kind, namespaced }
}

pub(super) const KINDS: &[Row] = &[
    row("", "v1", "namespaces", "Namespace", false),
    row("", "v1", "nodes", "Node", false),
    row("", "v1", "pods", "Pod", true),
    row("", "v1", "replicationcontrollers", "ReplicationController", true),
    row("", "v1", "services", "Service", true),
    row("", "v1", "endpoints", "Endpoints", true),
    row("", "v1", "configmaps", "ConfigMap", true),
    row("", "v1", "secrets", "Secret", true),
    row("", "v1", "serviceaccounts", "ServiceAccount", true),
    row("", "v1", "events", "Event", true),
    row("", "v1", "persistentvolumes", "PersistentVolume", false),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    row("apps", "v1", "deployments", "Deployment", true),
    row("apps", "v1", "replicasets", "ReplicaSet", true),
    row("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    row("apps", "v1", "daemonsets", "DaemonSet", true),
    row("apps", "v1", "statefulsets", "StatefulSet", true),
    row("batch", "v1", "jobs", "Job", true),
    row("batch", "v1", "cronjobs", "CronJob", true),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    row("coordination.k8s.io", "v1", "leases", "Lease", true),
    row("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
    row("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", false),
    row("networking.k8s.io", "v1", "ingresses", "Ingress", true),
    row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
];

pub(super) fn by_plural(plural: &str) -> Option<&'static Row> {
    KINDS.iter().find(|row| row.plural == plural)
}

pub(super) fn by_kind(kind: &str) -> Option<&'static Row> {
    KINDS.iter().find(|row| row.kind == kind)
}

impl Row {
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}
