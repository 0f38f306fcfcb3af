//! The built-in kinds' types as server-side apply sees them.

use super::{Definition, Field, Type};
use crate::custom::apply::CustomNode;
use crate::custom::schema::Schema;
use mini_api::apply::{ApplySchema, Child, Node, Scalar};
use serde_json::Value;
use std::sync::Arc;

/// A place in the schema of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyNode(Place);

#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// No facts.
    Any,
    Definition(&'static Definition),
    Field(&'static Field),
    /// Inside a list or a map.
    Type(&'static Type),
    Custom(CustomNode),
}

/// Optional fields that are structs, not pointers to structs, upstream: there, if empty, whatever the client sent. So
/// are `metadata`, `spec` and `status` everywhere, and all that is required.
const ALWAYS: &[(&str, &str)] = &[
    ("apps.v1.DaemonSetSpec", "updateStrategy"),
    ("apps.v1.DeploymentSpec", "strategy"),
    ("apps.v1.ReplicaSetSpec", "template"),
    ("apps.v1.StatefulSetSpec", "updateStrategy"),
    ("core.v1.Event", "source"),
    ("core.v1.NodeDaemonEndpoints", "kubeletEndpoint"),
    ("core.v1.NodeStatus", "daemonEndpoints"),
    ("core.v1.NodeStatus", "nodeInfo"),
    ("core.v1.PersistentVolumeClaimSpec", "resources"),
    ("core.v1.PodTemplate", "template"),
    ("core.v1.ServiceStatus", "loadBalancer"),
    ("events.v1.Event", "deprecatedSource"),
    ("events.v1.Event", "regarding"),
    ("networking.v1.IngressStatus", "loadBalancer"),
    ("networking.v1.NetworkPolicySpec", "podSelector"),
    ("resource.v1.ResourceClaimSpec", "devices"),
];

/// Keys of lists that have a default though they are optional. Those that are required default to their zero.
const KEY_DEFAULTS: &[(&str, &str, &str)] = &[
    ("core.v1.ContainerPort", "protocol", "TCP"),
    ("core.v1.LocalObjectReference", "name", ""),
    ("core.v1.ServicePort", "protocol", "TCP"),
];

impl ApplyNode {
    /// The root of a definition: `io.k8s.api.core.v1.Pod`.
    #[must_use]
    pub fn of(full_name: &str) -> Self {
        Self(super::definition(full_name).map_or(Place::Any, Place::Definition))
    }

    /// The root of a custom kind.
    pub(crate) fn of_custom(schema: &Arc<Schema>) -> Self {
        Self(Place::Custom(CustomNode::root(schema)))
    }

    /// A place in a custom kind.
    pub(crate) fn custom(node: CustomNode) -> Self {
        Self(Place::Custom(node))
    }

    pub(crate) fn any() -> Self {
        Self(Place::Any)
    }

    /// A scalar string.
    pub(crate) fn string() -> Self {
        Self(Place::Type(&Type::String))
    }

    fn kind(&self) -> Option<&'static Type> {
        match self.0 {
            Place::Field(field) => Some(&field.kind),
            Place::Type(kind) => Some(kind),
            Place::Any | Place::Definition(_) | Place::Custom(_) => None,
        }
    }

    fn definition(&self) -> Option<&'static Definition> {
        match (&self.0, self.kind()) {
            (Place::Definition(definition), _) | (_, Some(Type::Ref(definition))) => Some(definition),
            _ => None,
        }
    }

    fn field(&self) -> Option<&'static Field> {
        if let Place::Field(field) = self.0 { Some(field) } else { None }
    }

    fn list_type(&self) -> Option<(&'static str, impl Iterator<Item = &'static str> + use<>)> {
        self.field()?.list_type()
    }
}

impl ApplySchema for ApplyNode {
    fn node(&self) -> Node {
        if let Place::Custom(custom) = &self.0 {
            return custom.node();
        }
        let definition = self.definition().and_then(Definition::map_type);
        let map = Node::Map { atomic: self.field().and_then(Field::map_type).or(definition) == Some("atomic") };
        let Some(kind) = self.kind() else { return if self.0 == Place::Any { Node::Any } else { map } };
        match kind {
            Type::String | Type::Bytes => Node::Scalar(Scalar::String),
            Type::Bool => Node::Scalar(Scalar::Bool),
            Type::Int32 | Type::Int64 | Type::Double => Node::Scalar(Scalar::Number),
            Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime => Node::Scalar(Scalar::Untyped),
            Type::Raw | Type::FieldsV1 | Type::Any => Node::Any,
            Type::Ref(_) | Type::Map(_) => map,
            Type::List(_) => match self.list_type() {
                Some(("set", _)) => Node::Set,
                Some(("map", _)) => Node::KeyedList,
                _ => Node::AtomicList,
            },
        }
    }

    fn child(&self, name: &str) -> Child<Self> {
        if let Place::Custom(custom) = &self.0 {
            return custom.child(name);
        }
        if let Some(Type::Map(value)) = self.kind() {
            return Child::Item(Self(Place::Type(value)));
        }
        let Some(definition) = self.definition() else { return Child::Unknown };
        let Some(field) = definition.field(name) else { return Child::Unknown };
        let always = match field.kind {
            Type::Ref(_) => {
                field.required
                    || matches!(name, "metadata" | "spec" | "status")
                    || ALWAYS.contains(&(definition.name, field.name))
            }
            Type::List(_) | Type::Map(_) => field.required,
            _ => false,
        };
        let inside = Self(Place::Field(field));
        if always { Child::Always(inside) } else { Child::Field(inside) }
    }

    fn element(&self) -> Self {
        if let Place::Custom(custom) = &self.0 {
            return custom.element();
        }
        Self(if let Some(Type::List(element)) = self.kind() { Place::Type(element) } else { Place::Any })
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let custom = if let Place::Custom(custom) = &self.0 { custom.keys() } else { &[] };
        let own = self.list_type().into_iter().flat_map(|(_, keys)| keys).map(|key: &str| key);
        custom.iter().map(String::as_str).chain(own)
    }

    fn default(&self, name: &str) -> Option<Value> {
        if let Place::Custom(custom) = &self.0 {
            return custom.default(name);
        }
        let definition = self.definition()?;
        if let Some((.., value)) = KEY_DEFAULTS.iter().find(|(d, field, _)| *d == definition.name && *field == name) {
            return Some((*value).into());
        }
        let field = definition.field(name).filter(|field| field.required)?;
        match field.kind {
            Type::String => Some("".into()),
            Type::Int32 | Type::Int64 => Some(0.into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mini_api::apply::typed::{compare, field_set, validate};
    use serde_json::json;

    fn at(definition: &str, path: &[&str]) -> ApplyNode {
        path.iter().fold(ApplyNode::of(&format!("io.k8s.api.{definition}")), |node, name| match *name {
            "[]" => node.element(),
            name => node.child(name).schema().expect(name),
        })
    }

    #[test]
    fn nodes_are_what_upstreams_schema_says() {
        let node = |definition, path: &[&str]| at(definition, path).node();
        assert_eq!(node("core.v1.Pod", &["spec", "containers"]), Node::KeyedList);
        assert_eq!(node("core.v1.Pod", &["metadata", "finalizers"]), Node::Set);
        assert_eq!(node("core.v1.Pod", &["spec", "nodeSelector"]), Node::Map { atomic: true });
        assert_eq!(node("core.v1.Pod", &["spec", "tolerations"]), Node::AtomicList);
        assert_eq!(node("apps.v1.Deployment", &["spec", "selector"]), Node::Map { atomic: true });
        assert_eq!(node("core.v1.PersistentVolume", &["spec", "claimRef"]), Node::Map { atomic: false });
        assert_eq!(node("core.v1.ConfigMap", &["data"]), Node::Map { atomic: false });
        assert_eq!(
            node("core.v1.Pod", &["spec", "containers", "[]", "resources", "limits", "cpu"]),
            Node::Scalar(Scalar::Untyped)
        );
        assert_eq!(node("apps.v1.ControllerRevision", &["data"]), Node::Any);
        let ports = at("core.v1.Service", &["spec", "ports"]);
        assert_eq!(ports.keys().collect::<Vec<_>>(), ["port", "protocol"]);
        assert_eq!(
            (ports.element().default("port"), ports.element().default("protocol")),
            (Some(json!(0)), Some(json!("TCP")))
        );
        assert_eq!(ports.element().default("name"), None);
    }

    #[test]
    fn structs_that_are_always_there_have_no_first_owner() {
        let schema = ApplyNode::of("io.k8s.api.apps.v1.Deployment");
        let new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
            "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "containers": [{"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "v", "emptyDir": {}}]}}}});
        let added = compare(&schema, &json!({}), &new).changed().to_string();
        let wanted = [
            ".metadata.labels",
            ".metadata.labels.a",
            ".spec.selector",
            ".spec.strategy.type",
            ".spec.template.metadata.labels",
            ".spec.template.metadata.labels.a",
            ".spec.template.spec.volumes",
            ".spec.template.spec.containers[name=\"c\"]",
            ".spec.template.spec.containers[name=\"c\"].image",
            ".spec.template.spec.containers[name=\"c\"].name",
            ".spec.template.spec.containers[name=\"c\"].ports",
            ".spec.template.spec.containers[name=\"c\"].resources",
            ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
            ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            ".spec.template.spec.volumes[name=\"v\"]",
            ".spec.template.spec.volumes[name=\"v\"].emptyDir",
            ".spec.template.spec.volumes[name=\"v\"].name",
        ];
        assert_eq!(added.lines().collect::<Vec<_>>(), wanted);
        let applied = field_set(&schema, &new).to_string();
        assert!(!applied.lines().any(|line| line == ".metadata.labels" || line.ends_with(".ports")), "{applied}");
    }

    #[test]
    fn what_does_not_fit_is_told_as_upstream_does() {
        let schema = ApplyNode::of("io.k8s.api.apps.v1.Deployment");
        let container =
            json!({"name": "c", "what": 1, "env": [{"name": "A", "value": 5000}, {"name": "A"}], "args": {"a": "b"}});
        let config = json!({"metadata": 5, "spec": {"replicas": "two", "paused": "x",
            "template": {"spec": {"containers": [container], "hostUsers": null}}}});
        let prefix = ".spec.template.spec.containers[name=\"c\"]";
        assert_eq!(
            validate(&schema, &config),
            [
                ".metadata: expected map, got &{5}".to_owned(),
                ".spec.paused: expected boolean, got &{x}".to_owned(),
                ".spec.replicas: expected numeric (int or float), got string".to_owned(),
                format!("{prefix}.args: expected list, got &{{map[a:b]}}"),
                format!("{prefix}.env[name=\"A\"].value: expected string, got &value.valueUnstructured{{Value:5000}}"),
                format!("{prefix}.env: duplicate entries for key [name=\"A\"]"),
                format!("{prefix}.what: field not declared in schema"),
            ]
        );
    }
}
