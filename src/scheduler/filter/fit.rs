//! Room: resources and the number of pods.

use mini_client::requests::Amounts;

use crate::cluster::NodeState;

pub(super) fn lacks(needs: &Amounts, state: &NodeState) -> Vec<String> {
    let mut reasons = Vec::new();
    let pods = i64::try_from(state.pods.len()).unwrap_or(i64::MAX);
    if pods >= state.offers.get("pods") {
        reasons.push("Too many pods".to_owned());
    }
    for (name, need) in needs.0.iter().filter(|(_, need)| **need > 0) {
        if *need > state.offers.get(name).saturating_sub(state.taken.get(name)) {
            reasons.push(format!("Insufficient {name}"));
        }
    }
    reasons
}
