//! Amounts: what nodes offer and pods ask for. The scheduler and the node's own last word must not differ in this.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use mini_api::Quantity;

/// Amounts by resource name: `cpu` in thousandths, all others in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<String, i64>);

impl Amounts {
    /// Reads a resource list; what is not a quantity counts as nothing (the server stores none).
    #[must_use]
    pub fn read(list: Option<&BTreeMap<String, Written>>) -> Self {
        let amount = |name: &String, written: &Written| {
            let quantity = Quantity::parse(&written.0).ok()?;
            Some((name.clone(), if name == "cpu" { quantity.milli() } else { quantity.value() }))
        };
        Self(list.into_iter().flatten().filter_map(|(name, written)| amount(name, written)).collect())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = mine.saturating_add(*amount);
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = mine.saturating_sub(*amount);
        }
    }

    fn at_least(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let mine = self.0.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }
}

fn requests(resources: Option<&ResourceRequirements>) -> Amounts {
    Amounts::read(resources.and_then(|resources| resources.requests.as_ref()))
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a pod needs on its node: its containers and sidecars together, or any init container with the sidecars
/// started before it, whichever is more; with what the pod as a whole asks for, and its overhead.
#[must_use]
pub fn needs(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::default() };
    let mut total = of_containers(spec);
    if let Some(whole) = &spec.resources {
        let whole = requests(Some(whole));
        total.0.extend(whole.0);
    }
    total.add(&Amounts::read(spec.overhead.as_ref()));
    total
}

fn of_containers(spec: &PodSpec) -> Amounts {
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.add(&requests(container.resources.as_ref()));
    }
    let (mut sidecars, mut most) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container.resources.as_ref());
        if is_sidecar(container) {
            sidecars.add(&own);
            most.at_least(&sidecars);
        } else {
            let mut while_it_runs = sidecars.clone();
            while_it_runs.add(&own);
            most.at_least(&while_it_runs);
        }
    }
    total.add(&sidecars);
    total.at_least(&most);
    total
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_by_the_largest_and_sidecars_by_their_sum() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "containers": [{"name": "a", "resources": cpu("100m")}, {"name": "b", "resources": cpu("200m")}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": cpu("50m")},
                {"name": "i", "resources": cpu("1")}],
            "overhead": {"cpu": "10m", "memory": "1Mi"}}}))
        .unwrap();
        assert_eq!(needs(&pod).get("cpu"), 1060);
        assert_eq!(needs(&pod).get("memory"), 1 << 20);
    }
}
