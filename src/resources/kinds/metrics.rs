//! What nodes and pods use, `metrics.k8s.io`: optional, the addon metrics-server announces it.

use crate::columns::{self, Column, NAME};
use crate::resource::Hooks;
use mini_api::Meta;
use mini_api::quantity::Quantity;
use serde_json::Value;

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("CPU", "Cores in use."),
    Column::text("Memory", "Memory in use that could not be taken away at once."),
    Column::text("Window", "The time over which the use of cores was measured."),
];

const MEASURED: Hooks = Hooks { optional: true, columns: COLUMNS, ..Hooks::NONE };

pub(crate) const NODE: Hooks = Hooks { cells: |v, _| cells(v, std::slice::from_ref(v)), ..MEASURED };

pub(crate) const POD: Hooks = Hooks { cells: |v, _| cells(v, columns::list(v, &["containers"])), ..MEASURED };

/// `parts` have a `usage` each.
fn cells(v: &Value, parts: &[Value]) -> Vec<Value> {
    let sum = |resource: &str| -> Value {
        let used = parts.iter().filter_map(|part| Quantity::parse(part.text(&["usage", resource])).ok());
        used.fold(Quantity::ZERO, |sum, next| sum.plus(&next)).to_string().into()
    };
    vec![columns::name(v), sum("cpu"), sum("memory"), v.text(&["window"]).into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let part = |cpu: &str, memory: &str| json!({"name": "c", "usage": {"cpu": cpu, "memory": memory}});
        let pod = json!({"metadata": {"name": "p"}, "window": "10.5s",
            "containers": [part("1500000n", "1024Ki"), part("0", "1Ki")]});
        assert_eq!((POD.cells)(&pod, jiff::Timestamp::UNIX_EPOCH), ["p", "1500u", "1025Ki", "10.5s"]);
    }
}
