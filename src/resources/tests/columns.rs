//! The printed columns of every row, as upstream's printers have them: what `kubectl get` and `kubectl get -o wide` show.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use mini_resources::{Column, Registry, Resource};
use std::collections::BTreeSet;

/// One row a line: `*` is for `-o wide` alone; after the name stand a type that is not `string`, and a format.
const COLUMNS: &str = "\
v1 ComponentStatus: Name:name, Status, Message, Error
v1 ConfigMap: Name:name, Data, Age
v1 Endpoints: Name:name, Endpoints, Age
v1 Event: Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name:name*
v1 LimitRange: Name:name, Created At:date
v1 Namespace: Name:name, Status, Age
v1 Node: Name:name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*
v1 PersistentVolumeClaim: Name:name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode*
v1 PersistentVolume: Name:name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode*
v1 Pod: Name:name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*
v1 PodTemplate: Name:name, Containers, Images, Pod Labels
v1 ReplicationController: Name:name, Desired:integer, Current:integer, Ready:integer, Age, Containers*, Images*, Selector*
v1 ResourceQuota: Name:name, Request, Limit, Age
v1 Secret: Name:name, Type, Data, Age
v1 ServiceAccount: Name:name, Secrets, Age
v1 Service: Name:name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*
apiregistration.k8s.io/v1 APIService: Name:name, Service, Available, Age
apps/v1 ControllerRevision: Name:name, Controller, Revision, Age
apps/v1 DaemonSet: Name:name, Desired:integer, Current:integer, Ready:integer, Up-to-date:integer, Available:integer, Node Selector, Age, Containers*, Images*, Selector*
apps/v1 Deployment: Name:name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*
apps/v1 ReplicaSet: Name:name, Desired:integer, Current:integer, Ready:integer, Age, Containers*, Images*, Selector*
apps/v1 StatefulSet: Name:name, Ready, Age, Containers*, Images*
events.k8s.io/v1 Event: Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name:name*
autoscaling/v2 HorizontalPodAutoscaler: Name:name, Reference, Targets, MinPods, MaxPods, Replicas, Age
autoscaling/v1 HorizontalPodAutoscaler: Name:name, Reference, Targets, MinPods, MaxPods, Replicas, Age
batch/v1 CronJob: Name:name, Schedule, Timezone, Suspend:boolean, Active:integer, Last Schedule, Age, Containers*, Images*, Selector*
batch/v1 Job: Name:name, Status, Completions, Duration, Age, Containers*, Images*, Selector*
certificates.k8s.io/v1 CertificateSigningRequest: Name:name, Age, SignerName, Requestor, RequestedDuration, Condition
certificates.k8s.io/v1 ClusterTrustBundle: Name:name, SignerName
certificates.k8s.io/v1 PodCertificateRequest: Name:name, PodName, ServiceAccountName, NodeName, SignerName, State
networking.k8s.io/v1 IngressClass: Name:name, Controller, Parameters, Age
networking.k8s.io/v1 Ingress: Name:name, Class, Hosts, Address, Ports, Age
networking.k8s.io/v1 IPAddress: Name:name, ParentRef
networking.k8s.io/v1 NetworkPolicy: Name:name, Pod-Selector, Age
networking.k8s.io/v1 ServiceCIDR: Name:name, CIDRs, Age
policy/v1 PodDisruptionBudget: Name:name, Min Available, Max Unavailable, Allowed Disruptions:integer, Age
rbac.authorization.k8s.io/v1 ClusterRoleBinding: Name:name, Role, Age, Users*, Groups*, ServiceAccounts*
rbac.authorization.k8s.io/v1 ClusterRole: Name:name, Created At:date
rbac.authorization.k8s.io/v1 RoleBinding: Name:name, Role, Age, Users*, Groups*, ServiceAccounts*
rbac.authorization.k8s.io/v1 Role: Name:name, Created At:date
storage.k8s.io/v1 CSIDriver: Name:name, AttachRequired:boolean, PodInfoOnMount:boolean, StorageCapacity:boolean, TokenRequests, RequiresRepublish:boolean, Modes, Age
storage.k8s.io/v1 CSINode: Name:name, Drivers:integer, Age
storage.k8s.io/v1 CSIStorageCapacity: Name:name, StorageClassName, Capacity
storage.k8s.io/v1 StorageClass: Name:name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age
storage.k8s.io/v1 VolumeAttachment: Name:name, Attacher:name, PV, Node, Attached:boolean, Age
storage.k8s.io/v1 VolumeAttributesClass: Name:name, DriverName, Age
admissionregistration.k8s.io/v1 MutatingAdmissionPolicy: Name:name, Mutations:integer, ParamKind, Age
admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding: Name:name, PolicyName, ParamRef, Age
admissionregistration.k8s.io/v1 MutatingWebhookConfiguration: Name:name, Webhooks:integer, Age
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy: Name:name, Validations:integer, ParamKind, Age
admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding: Name:name, PolicyName, ParamRef, Age
admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration: Name:name, Webhooks:integer, Age
apiextensions.k8s.io/v1 CustomResourceDefinition: Name:name, Created At:date
scheduling.k8s.io/v1 PriorityClass: Name:name, Value:integer, Global-Default:boolean, Age, PreemptionPolicy
coordination.k8s.io/v1 Lease: Name:name, Holder, Age
node.k8s.io/v1 RuntimeClass: Name:name, Handler, Age
discovery.k8s.io/v1 EndpointSlice: Name:name, AddressType, Ports, Endpoints, Age
resource.k8s.io/v1 DeviceClass: Name:name, Age
resource.k8s.io/v1 DeviceTaintRule: Name:name, Key, Value, Effect, TimeAdded, Age
resource.k8s.io/v1 ResourceClaim: Name:name, State, Age
resource.k8s.io/v1 ResourceClaimTemplate: Name:name, Age
resource.k8s.io/v1 ResourceSlice: Name:name, Node, Driver, Pool, Age
flowcontrol.apiserver.k8s.io/v1 FlowSchema: Name:name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL
flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration: Name:name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age
storagemigration.k8s.io/v1 StorageVersionMigration: Name, Resource
metrics.k8s.io/v1 NodeMetrics: Name:name, CPU, Memory, Window
metrics.k8s.io/v1 PodMetrics: Name:name, CPU, Memory, Window
metrics.k8s.io/v1beta1 NodeMetrics: Name:name, CPU, Memory, Window
metrics.k8s.io/v1beta1 PodMetrics: Name:name, CPU, Memory, Window
";

fn written(column: &Column) -> String {
    let kind = if column.type_ == "string" { String::new() } else { format!(":{}", column.type_) };
    let format = if column.format.is_empty() { String::new() } else { format!(":{}", column.format) };
    let wide = if column.priority == 0 { "" } else { "*" };
    format!("{}{kind}{format}{wide}", column.name)
}

fn line(row: &Resource) -> String {
    let columns: Vec<String> = row.columns.iter().map(written).collect();
    format!("{} {}: {}", row.api_version(), row.kind, columns.join(", "))
}

#[test]
fn every_kind_that_can_be_listed_has_upstreams_columns() {
    let registry = Registry::builtin();
    let listed = registry.iter().filter(|row| row.has_verb("list"));
    let ours: BTreeSet<String> = listed.map(|row| line(row)).collect();
    let upstreams: BTreeSet<String> = COLUMNS.lines().map(str::to_owned).collect();
    let wrong: Vec<&String> = ours.symmetric_difference(&upstreams).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_column_says_what_it_shows_and_no_priority_is_unknown() {
    for row in Registry::builtin().iter() {
        for column in &row.columns {
            assert!(!column.description.is_empty(), "{} {}", row.kind, column.name);
            assert!(matches!(column.priority, 0 | 1), "{} {}", row.kind, column.name);
        }
    }
}
