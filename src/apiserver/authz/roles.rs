//! Upstream's default roles and bindings, as a table.
//!
//! A rule is one line: verbs, groups, resources and, if it is limited to some, names; or verbs and paths. `-` is the core
//! group. `R`, `W`, `U` and `A` stand for the verbs that read, write, read and update, and all of them.

use super::rule::Rule;

const READ: &str = "get,list,watch";
const WRITE: &str = "create,update,patch,delete,deletecollection";

/// The rule that every component has: to tell what it did.
const EVENTS: &str = "create,patch,update -,events.k8s.io events";

/// A default role.
pub(super) struct Role {
    /// Empty for a ClusterRole.
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    /// It is part of `admin`, `edit` or `view`.
    pub(super) part_of: Option<&'static str>,
    /// It is the sum of the parts of `admin`, `edit` or `view`.
    pub(super) sum_of: Option<&'static str>,
    rules: &'static [&'static str],
}

impl Role {
    pub(super) fn rules(&self) -> Vec<Rule> {
        self.rules.iter().map(|line| parse(line)).collect()
    }
}

/// A default binding. `subjects`: `g:group`, `u:user` or `s:namespace:name`.
pub(super) struct Binding {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) role: &'static str,
    pub(super) subjects: &'static [&'static str],
}

const fn role(name: &'static str, rules: &'static [&'static str]) -> Role {
    Role { namespace: "", name, part_of: None, sum_of: None, rules }
}

const fn sum(name: &'static str, part_of: Option<&'static str>) -> Role {
    Role { namespace: "", name, part_of, sum_of: Some(name), rules: &[] }
}

const fn part(name: &'static str, of: &'static str, rules: &'static [&'static str]) -> Role {
    Role { namespace: "", name, part_of: Some(of), sum_of: None, rules }
}

const fn local(namespace: &'static str, name: &'static str, rules: &'static [&'static str]) -> Role {
    Role { namespace, name, part_of: None, sum_of: None, rules }
}

const fn bind(role: &'static str, subjects: &'static [&'static str]) -> Binding {
    Binding { namespace: "", name: role, role, subjects }
}

const fn bind_in(
    namespace: &'static str,
    name: &'static str,
    role: &'static str,
    subjects: &'static [&'static str],
) -> Binding {
    Binding { namespace, name, role, subjects }
}

/// What a kubelet may do beyond what the Node authorizer decides object by object.
const NODE: &[&str] = &[
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews",
    "R - services",
    "create,get,list,watch - nodes",
    "update,patch - nodes/status",
    "update,patch - nodes",
    EVENTS,
    "R - pods",
    "create,delete - pods",
    "update,patch - pods/status",
    "create - pods/eviction",
    "R - secrets,configmaps",
    "get - persistentvolumeclaims,persistentvolumes",
    "get - endpoints",
    "create,get,list,watch certificates.k8s.io certificatesigningrequests",
    "get,create,update,patch,delete coordination.k8s.io leases",
    "get storage.k8s.io volumeattachments",
    "create - serviceaccounts/token",
    "get - serviceaccounts",
    "get,update,patch - persistentvolumeclaims/status",
    "R storage.k8s.io csidrivers",
    "get,create,update,patch,delete storage.k8s.io csinodes",
    "R node.k8s.io runtimeclasses",
    "get resource.k8s.io resourceclaims",
    "list,watch,create,update,patch,delete,deletecollection resource.k8s.io resourceslices",
    "R certificates.k8s.io clustertrustbundles",
];

pub(super) fn node_rules() -> Vec<Rule> {
    NODE.iter().map(|line| parse(line)).collect()
}

pub(super) const ROLES: &[Role] = &[
    role("cluster-admin", &["* * *", "* /*"]),
    role(
        "system:discovery",
        &["get /livez,/readyz,/healthz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*"],
    ),
    role("system:monitoring", &["get /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*"]),
    role(
        "system:basic-user",
        &[
            "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
            "create authentication.k8s.io selfsubjectreviews",
        ],
    ),
    role("system:public-info-viewer", &["get /livez,/readyz,/healthz,/version,/version/"]),
    sum("admin", None),
    sum("edit", Some("admin")),
    sum("view", Some("edit")),
    part(
        "system:aggregate-to-admin",
        "admin",
        &["create authorization.k8s.io localsubjectaccessreviews", "A rbac.authorization.k8s.io roles,rolebindings"],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        &[
            "R - pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy",
            "impersonate - serviceaccounts",
            "W - pods,pods/attach,pods/proxy,pods/exec,pods/portforward",
            "create - pods/eviction",
            "W - replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,persistentvolumeclaims,configmaps,secrets,events",
            "create - serviceaccounts/token",
            "W apps statefulsets,statefulsets/scale,daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale",
            "W autoscaling horizontalpodautoscalers",
            "W batch jobs,cronjobs",
            "W extensions daemonsets,deployments,deployments/scale,deployments/rollback,ingresses,replicasets,replicasets/scale,replicationcontrollers/scale,networkpolicies",
            "W policy poddisruptionbudgets",
            "W networking.k8s.io networkpolicies,ingresses",
            "A coordination.k8s.io leases",
            "W resource.k8s.io resourceclaims,resourceclaimtemplates",
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        &[
            "R - pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps",
            "R - limitranges,resourcequotas,bindings,events,pods/status,resourcequotas/status,namespaces/status,replicationcontrollers/status,pods/log",
            "R - namespaces",
            "R discovery.k8s.io endpointslices",
            "R apps controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status,deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale",
            "R autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
            "R batch jobs,cronjobs,cronjobs/status,jobs/status",
            "R extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale,networkpolicies",
            "R policy poddisruptionbudgets,poddisruptionbudgets/status",
            "R networking.k8s.io networkpolicies,ingresses,ingresses/status",
            "R resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates",
        ],
    ),
    role("system:heapster", &["R - events,pods,nodes,namespaces", "R extensions deployments"]),
    role("system:node", NODE),
    role("system:node-problem-detector", &["get - nodes", "patch - nodes/status", EVENTS]),
    role(
        "system:kubelet-api-admin",
        &[
            "R - nodes",
            "proxy - nodes",
            "* - nodes/proxy,nodes/metrics,nodes/spec,nodes/stats,nodes/log,nodes/configz,nodes/healthz,nodes/pods",
        ],
    ),
    role("system:node-bootstrapper", &["create,get,list,watch certificates.k8s.io certificatesigningrequests"]),
    role(
        "system:auth-delegator",
        &["create authentication.k8s.io tokenreviews", "create authorization.k8s.io subjectaccessreviews"],
    ),
    role("system:kube-aggregator", &["R - services,endpoints"]),
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            "create coordination.k8s.io leases",
            "get,update coordination.k8s.io leases kube-controller-manager",
            "create - secrets,serviceaccounts",
            "delete - secrets",
            "get - namespaces,secrets,serviceaccounts,configmaps",
            "update - secrets,serviceaccounts",
            "create authentication.k8s.io tokenreviews",
            "create authorization.k8s.io subjectaccessreviews",
            "list,watch * *",
            "create - serviceaccounts/token",
        ],
    ),
    role("system:kube-dns", &["list,watch - endpoints,services"]),
    role(
        "system:persistent-volume-provisioner",
        &[
            "get,list,watch,create,delete - persistentvolumes",
            "get,list,watch,update - persistentvolumeclaims",
            "R storage.k8s.io storageclasses",
            "watch - events",
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &["create certificates.k8s.io certificatesigningrequests/nodeclient"],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &["create certificates.k8s.io certificatesigningrequests/selfnodeclient"],
    ),
    role(
        "system:volume-scheduler",
        &["U - persistentvolumes", "R storage.k8s.io storageclasses", "U - persistentvolumeclaims"],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &["approve certificates.k8s.io signers kubernetes.io/legacy-unknown"],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kubelet-serving"],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client"],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &["approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet"],
    ),
    role("system:service-account-issuer-discovery", &["get /.well-known/openid-configuration,/openid/v1/jwks"]),
    role(
        "system:node-proxier",
        &[
            "list,watch - services,endpoints",
            "R - nodes",
            EVENTS,
            "list,watch discovery.k8s.io endpointslices",
            "list,watch networking.k8s.io servicecidrs",
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            "create coordination.k8s.io leases",
            "get,update,list,watch coordination.k8s.io leases kube-scheduler",
            "R - nodes",
            "get,list,watch,delete - pods",
            "create - pods/binding,bindings",
            "patch,update - pods/status",
            "R - services,replicationcontrollers",
            "R apps,extensions replicasets",
            "R apps statefulsets",
            "R policy poddisruptionbudgets",
            "R - persistentvolumeclaims,persistentvolumes",
            "create authentication.k8s.io tokenreviews",
            "create authorization.k8s.io subjectaccessreviews",
            "R storage.k8s.io csinodes",
            "R - namespaces",
            "R storage.k8s.io csidrivers",
            "R storage.k8s.io csistoragecapacities",
            "R storage.k8s.io volumeattachments",
            "R resource.k8s.io deviceclasses,resourceslices",
            "R resource.k8s.io resourceclaims",
            "patch,update resource.k8s.io resourceclaims/status",
            "patch,update resource.k8s.io resourceclaims",
        ],
    ),
    role(
        "system:controller:attachdetach-controller",
        &[
            "list,watch - persistentvolumes,persistentvolumeclaims",
            "R - nodes",
            "patch,update - nodes/status",
            "list,watch - pods",
            EVENTS,
            "get,create,delete,list,watch storage.k8s.io volumeattachments",
            "R storage.k8s.io csidrivers",
            "R storage.k8s.io csinodes",
        ],
    ),
    role(
        "system:controller:clusterrole-aggregation-controller",
        &["escalate,get,list,watch,update,patch rbac.authorization.k8s.io clusterroles"],
    ),
    role(
        "system:controller:cronjob-controller",
        &[
            "get,list,watch,update batch cronjobs",
            "get,list,watch,create,update,delete,patch batch jobs",
            "update batch cronjobs/status",
            "update batch cronjobs/finalizers",
            "list,delete - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:daemon-set-controller",
        &[
            "R extensions,apps daemonsets",
            "update extensions,apps daemonsets/status",
            "update extensions,apps daemonsets/finalizers",
            "list,watch - nodes",
            "list,watch,create,delete,patch - pods",
            "create - pods/binding",
            "get,list,watch,create,delete,update,patch apps controllerrevisions",
            EVENTS,
        ],
    ),
    role(
        "system:controller:deployment-controller",
        &[
            "get,list,watch,update extensions,apps deployments",
            "update extensions,apps deployments/status",
            "update extensions,apps deployments/finalizers",
            "get,list,watch,create,update,patch,delete apps,extensions replicasets",
            "get,list,watch,update - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:disruption-controller",
        &[
            "R extensions,apps deployments",
            "R apps,extensions replicasets",
            "R - replicationcontrollers",
            "R policy poddisruptionbudgets",
            "R apps statefulsets",
            "update policy poddisruptionbudgets/status",
            "list,watch - pods",
            "patch,update - pods/status",
            "get * */scale",
            EVENTS,
        ],
    ),
    role(
        "system:controller:endpoint-controller",
        &["R - services,pods", "get,list,create,update,delete - endpoints", "create - endpoints/restricted", EVENTS],
    ),
    role(
        "system:controller:endpointslice-controller",
        &[
            "R - services,pods,nodes",
            "update - services/finalizers",
            "get,list,create,update,delete discovery.k8s.io endpointslices",
            "create discovery.k8s.io endpointslices/restricted",
            EVENTS,
        ],
    ),
    role(
        "system:controller:endpointslicemirroring-controller",
        &[
            "R - services,endpoints",
            "update - services/finalizers",
            "update - endpoints/finalizers",
            "get,list,create,update,delete discovery.k8s.io endpointslices",
            "create discovery.k8s.io endpointslices/restricted",
            EVENTS,
        ],
    ),
    role(
        "system:controller:ephemeral-volume-controller",
        &["R - pods", "update - pods/finalizers", "get,list,watch,create - persistentvolumeclaims", EVENTS],
    ),
    role(
        "system:controller:expand-controller",
        &[
            "get,list,watch,update,patch - persistentvolumes",
            "update,patch - persistentvolumeclaims/status",
            "R - persistentvolumeclaims",
            "get - secrets",
            EVENTS,
        ],
    ),
    role("system:controller:generic-garbage-collector", &["get,list,watch,patch,update,delete * *", EVENTS]),
    role(
        "system:controller:horizontal-pod-autoscaler",
        &[
            "R autoscaling horizontalpodautoscalers",
            "update autoscaling horizontalpodautoscalers/status",
            "get,update * */scale",
            "list - pods",
            "list metrics.k8s.io pods",
            "get,list custom.metrics.k8s.io *",
            "get,list external.metrics.k8s.io *",
            EVENTS,
        ],
    ),
    role(
        "system:controller:job-controller",
        &[
            "get,list,watch,update,patch batch jobs",
            "update batch jobs/status",
            "update batch jobs/finalizers",
            "list,watch,create,delete,patch - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:legacy-service-account-token-cleaner",
        &["get - configmaps kube-apiserver-legacy-service-account-token-tracking", "patch,delete - secrets"],
    ),
    role(
        "system:controller:namespace-controller",
        &[
            "get,list,watch,delete - namespaces",
            "update - namespaces/finalize,namespaces/status",
            "get,list,delete,deletecollection * *",
        ],
    ),
    role(
        "system:controller:node-controller",
        &[
            "get,list,update,delete,patch - nodes",
            "patch,update - nodes/status",
            "patch,update - pods/status",
            "get,list,delete - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:persistent-volume-binder",
        &[
            "get,list,watch,update,create,delete - persistentvolumes",
            "update - persistentvolumes/status",
            "get,list,watch,update - persistentvolumeclaims",
            "update - persistentvolumeclaims/status",
            "list,watch,get,create,delete - pods",
            "R storage.k8s.io storageclasses",
            "get - secrets",
            "get,list - nodes",
            "watch - events",
            EVENTS,
        ],
    ),
    role(
        "system:controller:pod-garbage-collector",
        &["list,watch,delete - pods", "get,list - nodes", "patch - pods/status"],
    ),
    role(
        "system:controller:replicaset-controller",
        &[
            "get,list,watch,update apps,extensions replicasets",
            "update apps,extensions replicasets/status",
            "update apps,extensions replicasets/finalizers",
            "list,watch,patch,create,delete - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:replication-controller",
        &[
            "get,list,watch,update - replicationcontrollers",
            "update - replicationcontrollers/status",
            "update - replicationcontrollers/finalizers",
            "list,watch,patch,create,delete - pods",
            EVENTS,
        ],
    ),
    role(
        "system:controller:resource-claim-controller",
        &[
            "R - pods",
            "update - pods/finalizers",
            "get,list,watch,create,delete resource.k8s.io resourceclaims",
            "update,patch resource.k8s.io resourceclaims,resourceclaims/status",
            "update,patch - pods/status",
            EVENTS,
        ],
    ),
    role("system:controller:resourcequota-controller", &["list,watch * *", "update - resourcequotas/status", EVENTS]),
    role("system:controller:root-ca-cert-publisher", &["create,update - configmaps", EVENTS]),
    role("system:controller:route-controller", &["list,watch - nodes", "patch - nodes/status", EVENTS]),
    role("system:controller:service-account-controller", &["create - serviceaccounts", EVENTS]),
    role(
        "system:controller:service-cidrs-controller",
        &[
            "get,list,watch,patch,update networking.k8s.io servicecidrs",
            "patch,update networking.k8s.io servicecidrs/finalizers",
            "patch,update networking.k8s.io servicecidrs/status",
            "R networking.k8s.io ipaddresses",
            EVENTS,
        ],
    ),
    role(
        "system:controller:service-controller",
        &["R - services", "patch,update - services/status", "list,watch - nodes", EVENTS],
    ),
    role(
        "system:controller:statefulset-controller",
        &[
            "list,watch - pods",
            "R apps statefulsets",
            "update apps statefulsets/status",
            "update apps statefulsets/finalizers",
            "get,create,delete,update,patch - pods",
            "get,create,delete,update,patch,list,watch apps controllerrevisions",
            "get,create - persistentvolumeclaims",
            "update,delete - persistentvolumeclaims",
            EVENTS,
        ],
    ),
    role("system:controller:ttl-after-finished-controller", &["get,list,watch,delete batch jobs", EVENTS]),
    role("system:controller:ttl-controller", &["update,patch,list,watch - nodes", EVENTS]),
    role(
        "system:controller:certificate-controller",
        &[
            "get,list,watch,delete certificates.k8s.io certificatesigningrequests",
            "update certificates.k8s.io certificatesigningrequests/status,certificatesigningrequests/approval",
            "approve certificates.k8s.io signers kubernetes.io/kube-apiserver-client-kubelet",
            "sign certificates.k8s.io signers kubernetes.io/legacy-unknown,kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving",
            "create authorization.k8s.io subjectaccessreviews",
            EVENTS,
        ],
    ),
    role(
        "system:controller:pvc-protection-controller",
        &["get,list,watch,update - persistentvolumeclaims", "list,watch,get - pods", EVENTS],
    ),
    role("system:controller:pv-protection-controller", &["get,list,watch,update - persistentvolumes", EVENTS]),
    role(
        "system:controller:validatingadmissionpolicy-status-controller",
        &[
            "R admissionregistration.k8s.io validatingadmissionpolicies",
            "get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status",
            EVENTS,
        ],
    ),
    local(
        "kube-system",
        "extension-apiserver-authentication-reader",
        &["R - configmaps extension-apiserver-authentication"],
    ),
    local("kube-system", "system:controller:bootstrap-signer", &["R - secrets"]),
    local("kube-system", "system:controller:cloud-provider", &["create,get,list,watch - configmaps"]),
    local("kube-system", "system:controller:token-cleaner", &["get,list,watch,delete - secrets", EVENTS]),
    local(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &["watch - configmaps", "get,update - configmaps kube-controller-manager"],
    ),
    local(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &["watch - configmaps", "get,update - configmaps kube-scheduler"],
    ),
    local(
        "kube-public",
        "system:controller:bootstrap-signer",
        &["R - configmaps", "update - configmaps cluster-info", EVENTS],
    ),
    // By kubeadm's name: what a machine may read before it knows anybody here.
    local("kube-public", CLUSTER_INFO, &["get - configmaps cluster-info"]),
];

const CLUSTER_INFO: &str = "kubeadm:bootstrap-signer-clusterinfo";
const MANAGER: &str = "u:system:kube-controller-manager";
const SCHEDULER: &str = "u:system:kube-scheduler";

/// Bindings of the roles above. Those of `system:controller:*` ClusterRoles are not here: see [`controller_bindings`].
pub(super) const BINDINGS: &[Binding] = &[
    bind("cluster-admin", &["g:system:masters"]),
    bind("system:monitoring", &["g:system:monitoring"]),
    bind("system:discovery", &["g:system:authenticated"]),
    bind("system:basic-user", &["g:system:authenticated"]),
    bind("system:public-info-viewer", &["g:system:authenticated", "g:system:unauthenticated"]),
    bind("system:node-proxier", &["u:system:kube-proxy"]),
    bind("system:kube-controller-manager", &[MANAGER]),
    bind("system:kube-dns", &["s:kube-system:kube-dns"]),
    bind("system:kube-scheduler", &[SCHEDULER]),
    bind("system:volume-scheduler", &[SCHEDULER]),
    bind("system:node", &[]),
    bind("system:service-account-issuer-discovery", &["g:system:serviceaccounts"]),
    bind_in(
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[MANAGER, SCHEDULER],
    ),
    bind_in(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[MANAGER, "s:kube-system:kube-controller-manager"],
    ),
    bind_in(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[SCHEDULER, "s:kube-system:kube-scheduler"],
    ),
    bind_in(
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["s:kube-system:bootstrap-signer"],
    ),
    bind_in(
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &["s:kube-system:cloud-provider"],
    ),
    bind_in(
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &["s:kube-system:token-cleaner"],
    ),
    bind_in(
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["s:kube-system:bootstrap-signer"],
    ),
    bind_in("kube-public", CLUSTER_INFO, CLUSTER_INFO, &["u:system:anonymous"]),
];

/// Every controller's ClusterRole with the subjects it is bound to: upstream's service account, and the one identity
/// that all controllers of this process share.
pub(super) fn controller_bindings() -> impl Iterator<Item = (&'static str, [String; 2])> {
    let roles = ROLES.iter().filter(|role| role.namespace.is_empty());
    roles.filter_map(|role| {
        let account = role.name.strip_prefix("system:controller:")?;
        Some((role.name, [format!("s:kube-system:{account}"), MANAGER.to_owned()]))
    })
}

fn parse(line: &str) -> Rule {
    let list = |word: &str| -> Vec<String> { word.split(',').map(str::to_owned).collect() };
    let mut words = line.split(' ');
    let verbs = match words.next().unwrap_or_default() {
        "R" => list(READ),
        "W" => list(WRITE),
        "U" => [list(READ), list("update,patch")].concat(),
        "A" => [list(READ), list(WRITE)].concat(),
        verbs => list(verbs),
    };
    let first = words.next().unwrap_or_default();
    if first.starts_with('/') {
        // `/*` alone stands for every path.
        let urls = if first == "/*" { list("*") } else { list(first) };
        return Rule { verbs, urls, ..Rule::default() };
    }
    let groups = first.split(',').map(|group| if group == "-" { "" } else { group }.to_owned()).collect();
    let resources = list(words.next().unwrap_or_default());
    let names = words.next().map(list).unwrap_or_default();
    Rule { verbs, groups, resources, names, urls: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_makes_a_whole_rule() {
        for role in ROLES {
            for (line, rule) in role.rules.iter().zip(role.rules()) {
                let words = line.split(' ').count();
                let whole = if rule.urls.is_empty() { (3..=4).contains(&words) } else { words == 2 };
                assert!(whole && !rule.verbs.iter().any(String::is_empty), "{}: {line}", role.name);
                assert!(!rule.verbs.iter().any(|v| v.chars().any(char::is_uppercase)), "{}: {line}", role.name);
                assert!(rule.urls.iter().all(|u| u == "*" || u.starts_with('/')), "{}: {line}", role.name);
            }
        }
    }

    #[test]
    fn bindings_lead_to_roles() {
        for binding in BINDINGS {
            let found = ROLES.iter().any(|r| r.name == binding.role && r.namespace == binding.namespace);
            assert!(found, "{}", binding.name);
        }
        assert!(controller_bindings().count() > 30);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = ROLES.iter().map(|r| (r.namespace, r.name)).collect();
        names.sort_unstable();
        names.windows(2).for_each(|pair| assert_ne!(pair.first(), pair.last()));
    }
}
