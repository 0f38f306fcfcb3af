//! What the scheduler knows of nodes and of the pods on them, including those it has only decided about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use mini_client::requests::{Amounts, needs};

use crate::selection;

/// A pod on a node.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) pod: Arc<Pod>,
    needs: Amounts,
    /// Decided here; the server has not told of it yet.
    assumed: bool,
}

/// What a word of the server about an assigned pod means for those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    None,
    /// It came: only pods that must be near it can have waited for that.
    Placed,
    /// It takes other room, or is another to selectors, than before.
    Changed,
}

/// One node and what is on it. Pods may be known before their node is.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) offers: Amounts,
    pub(crate) taken: Amounts,
    pub(crate) pods: HashMap<String, Placed>,
}

impl NodeState {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(name).map(String::as_str)
    }

    pub(crate) fn name(&self) -> &str {
        self.node.as_ref().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// The node of each known pod, by uid.
    places: HashMap<String, String>,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

impl Cluster {
    /// The nodes there are.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values().filter(|state| state.node.is_some())
    }

    /// A node there is.
    pub(crate) fn node(&self, name: &str) -> Option<&NodeState> {
        self.nodes.get(name).filter(|state| state.node.is_some())
    }

    pub(crate) fn knows(&self, pod: &Pod) -> bool {
        self.places.contains_key(uid(pod))
    }

    /// Takes a node's state; tells whether a waiting pod may fit better now.
    pub(crate) fn set_node(&mut self, node: &Arc<Node>) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let state = self.nodes.entry(name).or_default();
        let before = state.node.replace(node.clone());
        let status = node.status.as_ref();
        let list = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let offers = Amounts::read(list);
        let helps = before.is_none_or(|before| {
            before.metadata.labels != node.metadata.labels || before.spec != node.spec || state.offers != offers
        });
        state.offers = offers;
        helps
    }

    pub(crate) fn remove_node(&mut self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if let Some(state) = self.nodes.get_mut(name) {
            state.node = None;
            if state.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes the server's word about an assigned pod; tells what is new about it.
    pub(crate) fn place(&mut self, pod: &Arc<Pod>) -> News {
        let Some(node) = selection::node(pod).map(str::to_owned) else { return News::None };
        let known = self.places.get(uid(pod)).filter(|place| **place == node);
        let placed = known.and_then(|place| self.nodes.get(place)?.pods.get(uid(pod)));
        let news = match placed {
            // It takes less, or is no longer what others avoid.
            Some(placed) if placed.pod.metadata.labels != pod.metadata.labels || placed.needs != needs(pod) => {
                News::Changed
            }
            Some(placed) if !placed.assumed => News::None,
            _ => News::Placed,
        };
        if news == News::None && placed.is_some_and(|placed| placed.pod.spec == pod.spec) {
            // The newer one is shared with everybody else; the older one would be kept for us alone.
            if let Some(placed) = self.nodes.get_mut(&node).and_then(|state| state.pods.get_mut(uid(pod))) {
                placed.pod = pod.clone();
            }
            return news;
        }
        self.insert(pod, &node, false);
        news
    }

    /// Counts a pod as placed before the server does.
    pub(crate) fn assume(&mut self, pod: &Arc<Pod>, node: &str) {
        self.insert(pod, node, true);
    }

    fn insert(&mut self, pod: &Arc<Pod>, node: &str, assumed: bool) {
        self.remove_pod(pod);
        self.put_back(node, &Placed { pod: pod.clone(), needs: needs(pod), assumed });
    }

    /// Puts a pod that was taken off its node there again.
    pub(crate) fn put_back(&mut self, node: &str, placed: &Placed) {
        let uid = uid(&placed.pod).to_owned();
        let state = self.nodes.entry(node.to_owned()).or_default();
        state.taken.add(&placed.needs);
        state.pods.insert(uid.clone(), placed.clone());
        self.places.insert(uid, node.to_owned());
    }

    /// Takes a pod off its node; tells whether it was on one.
    pub(crate) fn remove_pod(&mut self, pod: &Pod) -> bool {
        let Some(node) = self.places.remove(uid(pod)) else { return false };
        if let Some(state) = self.nodes.get_mut(&node) {
            if let Some(placed) = state.pods.remove(uid(pod)) {
                state.taken.subtract(&placed.needs);
            }
            if state.pods.is_empty() && state.node.is_none() {
                self.nodes.remove(&node);
            }
        }
        true
    }

    /// Takes back a decision that did not come true.
    pub(crate) fn forget_assumed(&mut self, pod: &Pod) {
        let node = self.places.get(uid(pod));
        let placed = node.and_then(|node| self.nodes.get(node)?.pods.get(uid(pod)));
        if placed.is_some_and(|placed| placed.assumed) {
            self.remove_pod(pod);
        }
    }
}
