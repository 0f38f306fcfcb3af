//! The rows. Order is the order of discovery; the first version of a group is its preferred one.

use crate::kinds::{
    api_service, autoscaling, batch, certificate, config, crd, daemons, deployment, device, endpoints, event, flow,
    ingress, lease, limits, metrics, namespace, networking, node, others, pod, policy, quota, rbac, replicas, service,
    service_account, service_range, storage, volume, webhook,
};
use crate::resource::{Hooks, Resource, Subresource};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const CONNECT: &[&str] = &["create", "get"];
/// The category of what extends the API.
const EXTENSIONS: &[&str] = &["api-extensions"];
const READ: &[&str] = &["get", "list"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// A row as it is written below; [`Row::resource`] makes the real one.
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [&'static str],
    subresources: &'static [(&'static str, &'static str, &'static [&'static str])],
    fields: &'static [&'static str],
    storage: Option<&'static str>,
    hooks: &'static Hooks,
}

/// A namespaced kind with all verbs.
const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        subresources: &[],
        fields: &[],
        storage: None,
        hooks: &Hooks::NONE,
    }
}

impl Row {
    const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }
    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }
    /// Listed by `kubectl get all`.
    const fn all(mut self) -> Self {
        self.categories = &["all"];
        self
    }
    const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }
    const fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }
    /// Name, kind (with group and version where they are not the row's own) and verbs.
    const fn sub(mut self, subs: &'static [(&'static str, &'static str, &'static [&'static str])]) -> Self {
        self.subresources = subs;
        self
    }
    const fn fields(mut self, fields: &'static [&'static str]) -> Self {
        self.fields = fields;
        self
    }
    const fn storage(mut self, segment: &'static str) -> Self {
        self.storage = Some(segment);
        self
    }
    const fn hooks(mut self, hooks: &'static Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    fn resource(&self) -> Resource {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let package = match self.group {
            "" => "io.k8s.api.core",
            APIEXTENSIONS => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
            APIREGISTRATION => "io.k8s.kube-aggregator.pkg.apis.apiregistration",
            METRICS => "io.k8s.metrics.pkg.apis.metrics",
            group => &format!("io.k8s.api.{}", group.split('.').next().unwrap_or(group)),
        };
        Resource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short_names: own(self.short_names),
            categories: own(self.categories),
            namespaced: self.namespaced,
            verbs: self.verbs.to_vec(),
            subresources: self
                .subresources
                .iter()
                .map(|(name, kind, verbs)| self.subresource(name, kind, verbs))
                .collect(),
            columns: self.hooks.columns.to_vec(),
            fields: own(self.fields),
            storage: match (self.storage, self.group) {
                (Some(segment), _) => segment.to_owned(),
                (None, "") => self.plural.to_owned(),
                (None, group) => format!("{}.{group}", self.plural),
            },
            definition: format!("{package}.{}.{}", self.version, self.kind),
            hooks: self.hooks,
            custom: None,
        }
    }

    fn subresource(&self, name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
        // Bodies that belong to another group than their parent.
        let (group, version) = match kind {
            "Scale" => ("autoscaling", "v1"),
            "Eviction" => ("policy", "v1"),
            "TokenRequest" => ("authentication.k8s.io", "v1"),
            _ => (self.group, self.version),
        };
        Subresource { name, kind: kind.into(), group: group.into(), version: version.into(), verbs }
    }
}

pub(crate) fn rows() -> Vec<Resource> {
    ROWS.iter().map(Row::resource).collect()
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const APIREGISTRATION: &str = "apiregistration.k8s.io";
const APPS: &str = "apps";
const CERTIFICATES: &str = "certificates.k8s.io";
const DEVICES: &str = "resource.k8s.io";
const EVENTS: &str = "events.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const APIEXTENSIONS: &str = "apiextensions.k8s.io";
const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const METRICS: &str = "metrics.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static ROWS: &[Row] =
    &[
        // core
        row("", "v1", "Binding", "bindings").verbs(CREATE),
        row("", "v1", "ConfigMap", "configmaps").hooks(&config::CONFIG_MAP).short(&["cm"]),
        row("", "v1", "Endpoints", "endpoints").hooks(&endpoints::ENDPOINTS).short(&["ep"]),
        row("", "v1", "Event", "events").hooks(&event::CORE).short(&["ev"]).fields(&[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]),
        row("", "v1", "LimitRange", "limitranges").hooks(&limits::RANGE).short(&["limits"]),
        row("", "v1", "Namespace", "namespaces")
            .hooks(&namespace::HOOKS)
            .cluster()
            .short(&["ns"])
            .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
            .sub(&[("finalize", "Namespace", &["update"]), ("status", "Namespace", CHANGE)])
            .fields(&["status.phase"]),
        row("", "v1", "Node", "nodes")
            .hooks(&node::HOOKS)
            .cluster()
            .short(&["no"])
            .sub(&[("proxy", "NodeProxyOptions", PROXY), ("status", "Node", CHANGE)])
            .fields(&["spec.unschedulable"]),
        row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
            .hooks(&volume::CLAIM)
            .short(&["pvc"])
            .sub(&[("status", "PersistentVolumeClaim", CHANGE)]),
        row("", "v1", "PersistentVolume", "persistentvolumes")
            .hooks(&volume::VOLUME)
            .cluster()
            .short(&["pv"])
            .sub(&[("status", "PersistentVolume", CHANGE)]),
        row("", "v1", "Pod", "pods")
            .hooks(&pod::HOOKS)
            .short(&["po"])
            .all()
            .sub(&[
                ("attach", "PodAttachOptions", CONNECT),
                ("binding", "Binding", CREATE),
                ("ephemeralcontainers", "Pod", CHANGE),
                ("eviction", "Eviction", CREATE),
                ("exec", "PodExecOptions", CONNECT),
                ("log", "Pod", &["get"]),
                ("portforward", "PodPortForwardOptions", CONNECT),
                ("proxy", "PodProxyOptions", PROXY),
                ("resize", "Pod", CHANGE),
                ("status", "Pod", CHANGE),
            ])
            .fields(&[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ]),
        row("", "v1", "PodTemplate", "podtemplates").hooks(&others::POD_TEMPLATE),
        row("", "v1", "ReplicationController", "replicationcontrollers")
            .hooks(&replicas::CONTROLLER)
            .short(&["rc"])
            .all()
            .sub(&[("scale", "Scale", CHANGE), ("status", "ReplicationController", CHANGE)])
            .fields(&["status.replicas"]),
        row("", "v1", "ResourceQuota", "resourcequotas").hooks(&quota::QUOTA).short(&["quota"]).sub(&[(
            "status",
            "ResourceQuota",
            CHANGE,
        )]),
        row("", "v1", "Secret", "secrets").hooks(&config::SECRET).fields(&["type"]),
        row("", "v1", "ServiceAccount", "serviceaccounts").hooks(&service_account::HOOKS).short(&["sa"]).sub(&[(
            "token",
            "TokenRequest",
            CREATE,
        )]),
        row("", "v1", "Service", "services")
            .hooks(&service::HOOKS)
            .short(&["svc"])
            .all()
            .sub(&[("proxy", "ServiceProxyOptions", PROXY), ("status", "Service", CHANGE)])
            .fields(&["spec.clusterIP", "spec.type"]),
        row(APIREGISTRATION, "v1", "APIService", "apiservices")
            .hooks(&api_service::SERVICE)
            .cluster()
            .categories(EXTENSIONS)
            .sub(&[("status", "APIService", CHANGE)]),
        // apps
        row(APPS, "v1", "ControllerRevision", "controllerrevisions").hooks(&daemons::REVISION),
        row(APPS, "v1", "DaemonSet", "daemonsets").hooks(&daemons::DAEMON).short(&["ds"]).all().sub(&[(
            "status",
            "DaemonSet",
            CHANGE,
        )]),
        row(APPS, "v1", "Deployment", "deployments")
            .hooks(&deployment::HOOKS)
            .short(&["deploy"])
            .all()
            .sub(&[("scale", "Scale", CHANGE), ("status", "Deployment", CHANGE)]),
        row(APPS, "v1", "ReplicaSet", "replicasets")
            .hooks(&replicas::SET)
            .short(&["rs"])
            .all()
            .sub(&[("scale", "Scale", CHANGE), ("status", "ReplicaSet", CHANGE)])
            .fields(&["status.replicas"]),
        row(APPS, "v1", "StatefulSet", "statefulsets")
            .hooks(&daemons::STATEFUL)
            .short(&["sts"])
            .all()
            .sub(&[("scale", "Scale", CHANGE), ("status", "StatefulSet", CHANGE)]),
        // events.k8s.io: the same objects as the core events, in other words.
        row(EVENTS, "v1", "Event", "events").hooks(&event::EVENTS).short(&["ev"]).storage("events").fields(&[
            "reason",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reportingController",
            "type",
        ]),
        // Reviews are answered, never stored.
        row(AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews").cluster().verbs(CREATE),
        row(AUTHN, "v1", "TokenReview", "tokenreviews").cluster().verbs(CREATE),
        row(AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews").verbs(CREATE),
        row(AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews").cluster().verbs(CREATE),
        row(AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews").cluster().verbs(CREATE),
        row(AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews").cluster().verbs(CREATE),
        row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .hooks(&autoscaling::V2)
            .short(&["hpa"])
            .all()
            .sub(&[("status", "HorizontalPodAutoscaler", CHANGE)]),
        row("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            .hooks(&autoscaling::V1)
            .short(&["hpa"])
            .all()
            .sub(&[("status", "HorizontalPodAutoscaler", CHANGE)]),
        row("batch", "v1", "CronJob", "cronjobs")
            .hooks(&batch::CRON_JOB)
            .short(&["cj"])
            .all()
            .sub(&[("status", "CronJob", CHANGE)]),
        row("batch", "v1", "Job", "jobs")
            .hooks(&batch::JOB)
            .all()
            .sub(&[("status", "Job", CHANGE)])
            .fields(&["status.successful"]),
        row(CERTIFICATES, "v1", "CertificateSigningRequest", "certificatesigningrequests")
            .hooks(&certificate::SIGNING_REQUEST)
            .cluster()
            .short(&["csr"])
            .sub(&[("approval", "CertificateSigningRequest", CHANGE), ("status", "CertificateSigningRequest", CHANGE)])
            .fields(&["spec.signerName"]),
        row(CERTIFICATES, "v1", "ClusterTrustBundle", "clustertrustbundles")
            .hooks(&certificate::TRUST_BUNDLE)
            .cluster()
            .fields(&["spec.signerName"]),
        row(CERTIFICATES, "v1", "PodCertificateRequest", "podcertificaterequests")
            .hooks(&certificate::POD_REQUEST)
            .sub(&[("status", "PodCertificateRequest", CHANGE)])
            .fields(&["spec.nodeName", "spec.podName", "spec.signerName"]),
        row(NETWORKING, "v1", "IPAddress", "ipaddresses")
            .hooks(&service_range::ADDRESS)
            .cluster()
            .short(&["ip"])
            .fields(&["spec.parentRef.name", "spec.parentRef.namespace", "spec.parentRef.resource"]),
        row(NETWORKING, "v1", "ServiceCIDR", "servicecidrs").hooks(&service_range::RANGE).cluster().sub(&[(
            "status",
            "ServiceCIDR",
            CHANGE,
        )]),
        row(NETWORKING, "v1", "IngressClass", "ingressclasses").hooks(&ingress::CLASS).cluster(),
        row(NETWORKING, "v1", "Ingress", "ingresses")
            .hooks(&ingress::INGRESS)
            .short(&["ing"])
            .sub(&[("status", "Ingress", CHANGE)]),
        row(NETWORKING, "v1", "NetworkPolicy", "networkpolicies").hooks(&networking::POLICY).short(&["netpol"]),
        row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
            .hooks(&others::BUDGET)
            .short(&["pdb"])
            .sub(&[("status", "PodDisruptionBudget", CHANGE)]),
        row(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings").hooks(&rbac::CLUSTER_BINDING).cluster(),
        row(RBAC, "v1", "ClusterRole", "clusterroles").hooks(&rbac::CLUSTER_ROLE).cluster(),
        row(RBAC, "v1", "RoleBinding", "rolebindings").hooks(&rbac::BINDING),
        row(RBAC, "v1", "Role", "roles").hooks(&rbac::ROLE),
        row(STORAGE, "v1", "CSIDriver", "csidrivers").hooks(&storage::CSI_DRIVER).cluster(),
        row(STORAGE, "v1", "CSINode", "csinodes").hooks(&storage::CSI_NODE).cluster(),
        row(STORAGE, "v1", "CSIStorageCapacity", "csistoragecapacities").hooks(&storage::CSI_CAPACITY),
        row(STORAGE, "v1", "StorageClass", "storageclasses").hooks(&storage::CLASS).cluster().short(&["sc"]),
        row(STORAGE, "v1", "VolumeAttachment", "volumeattachments").hooks(&storage::ATTACHMENT).cluster().sub(&[(
            "status",
            "VolumeAttachment",
            CHANGE,
        )]),
        row(STORAGE, "v1", "VolumeAttributesClass", "volumeattributesclasses")
            .hooks(&storage::ATTRIBUTES_CLASS)
            .cluster()
            .short(&["vac"]),
        row(ADMISSION, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .hooks(&policy::MUTATING)
            .cluster()
            .categories(EXTENSIONS),
        row(ADMISSION, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .hooks(&policy::MUTATING_BINDING)
            .cluster()
            .categories(EXTENSIONS),
        row(ADMISSION, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .hooks(&webhook::MUTATING)
            .cluster()
            .categories(EXTENSIONS),
        row(ADMISSION, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .hooks(&policy::VALIDATING)
            .cluster()
            .categories(EXTENSIONS)
            .sub(&[("status", "ValidatingAdmissionPolicy", CHANGE)]),
        row(ADMISSION, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .hooks(&policy::VALIDATING_BINDING)
            .cluster()
            .categories(EXTENSIONS),
        row(ADMISSION, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .hooks(&webhook::VALIDATING)
            .cluster()
            .categories(EXTENSIONS),
        row(APIEXTENSIONS, "v1", "CustomResourceDefinition", "customresourcedefinitions")
            .hooks(&crd::HOOKS)
            .cluster()
            .short(&["crd", "crds"])
            .categories(EXTENSIONS)
            .sub(&[("status", "CustomResourceDefinition", CHANGE)]),
        row("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
            .hooks(&others::PRIORITY_CLASS)
            .cluster()
            .short(&["pc"]),
        row("coordination.k8s.io", "v1", "Lease", "leases").hooks(&lease::HOOKS),
        row("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses").hooks(&others::RUNTIME_CLASS).cluster(),
        row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices").hooks(&endpoints::SLICE),
        row(DEVICES, "v1", "DeviceClass", "deviceclasses").hooks(&device::CLASS).cluster(),
        row(DEVICES, "v1", "DeviceTaintRule", "devicetaintrules").hooks(&device::TAINT).cluster().sub(&[(
            "status",
            "DeviceTaintRule",
            CHANGE,
        )]),
        row(DEVICES, "v1", "ResourceClaim", "resourceclaims").hooks(&device::CLAIM).sub(&[(
            "status",
            "ResourceClaim",
            CHANGE,
        )]),
        row(DEVICES, "v1", "ResourceClaimTemplate", "resourceclaimtemplates").hooks(&device::TEMPLATE),
        row(DEVICES, "v1", "ResourceSlice", "resourceslices")
            .hooks(&device::SLICE)
            .cluster()
            .fields(&["spec.driver", "spec.nodeName"]),
        row(FLOW, "v1", "FlowSchema", "flowschemas").hooks(&flow::SCHEMA).cluster().sub(&[(
            "status",
            "FlowSchema",
            CHANGE,
        )]),
        row(FLOW, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
            .hooks(&flow::LEVEL)
            .cluster()
            .sub(&[("status", "PriorityLevelConfiguration", CHANGE)]),
        row("storagemigration.k8s.io", "v1", "StorageVersionMigration", "storageversionmigrations")
            .hooks(&others::MIGRATION)
            .cluster()
            .sub(&[("status", "StorageVersionMigration", CHANGE)]),
        // Asked for and never stored.
        row("", "v1", "ComponentStatus", "componentstatuses")
            .hooks(&others::COMPONENT)
            .cluster()
            .short(&["cs"])
            .verbs(READ),
        row(METRICS, "v1", "NodeMetrics", "nodes").hooks(&metrics::NODE).cluster().verbs(READ),
        row(METRICS, "v1", "PodMetrics", "pods").hooks(&metrics::POD).verbs(READ),
        row(METRICS, "v1beta1", "NodeMetrics", "nodes").hooks(&metrics::NODE).cluster().verbs(READ),
        row(METRICS, "v1beta1", "PodMetrics", "pods").hooks(&metrics::POD).verbs(READ),
    ];
