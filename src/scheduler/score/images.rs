//! Image locality: nodes that have a pod's images already, weighed by the size of what need not be pulled.

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, NodeState};

const MIB: i64 = 1 << 20;
/// Less than this is as good as nothing.
const LEAST: i64 = 23 * MIB;
/// More than this for each container is as good as all.
const MOST: i64 = 1000 * MIB;

/// A pod's images, and on how many nodes each is.
pub(super) struct Spread {
    nodes: i64,
    images: Vec<(String, i64)>,
}

/// An image's name with its tag.
fn full(name: &str) -> String {
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}

fn size(state: &NodeState, name: &str) -> Option<i64> {
    let images = state.node.as_ref()?.status.as_ref()?.images.as_ref()?;
    let image =
        images.iter().find(|image| image.names.iter().flatten().any(|held| held == name || same(held, name)))?;
    image.size_bytes
}

/// The runtime tells whole names; pods leave the default registry out.
fn same(held: &str, name: &str) -> bool {
    let short = held.strip_prefix("docker.io/").unwrap_or(held);
    short == name || short.strip_prefix("library/") == Some(name)
}

fn images(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.filter_map(|container| container.image.as_deref()).map(full).collect()
}

impl Spread {
    pub(super) fn of(pod: &Pod, cluster: &Cluster) -> Self {
        let counted = |name: String| {
            let count = cluster.nodes().filter(|state| size(state, &name).is_some()).count();
            (name, i64::try_from(count).unwrap_or_default())
        };
        let images = images(pod).into_iter().map(counted).collect();
        Self { nodes: i64::try_from(cluster.nodes().count()).unwrap_or(1).max(1), images }
    }

    /// 0 to 100. An image that is on few nodes draws less, so that they do not fill up with its pods.
    pub(super) fn score(&self, state: &NodeState) -> i64 {
        let most = MOST * i64::try_from(self.images.len()).unwrap_or(1).max(1);
        let held = self.images.iter().filter(|(_, holders)| *holders > 0);
        let held = held.filter_map(|(name, holders)| Some(size(state, name)? / self.nodes * holders));
        100 * (held.sum::<i64>().clamp(LEAST, most) - LEAST) / (most - LEAST)
    }
}
