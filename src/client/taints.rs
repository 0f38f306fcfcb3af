//! Does a pod bear a taint? The scheduler and the controller that evicts must not differ in this.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Upstream's `ToleratesTaint`: an empty effect or key stands for every one; `Lt` and `Gt` compare whole numbers.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted.is_empty() || wanted == found);
    if !is(toleration.effect.as_deref(), &taint.effect) {
        return false;
    }
    let value = taint.value.as_deref().unwrap_or_default();
    let wanted = toleration.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => is(toleration.key.as_deref(), &taint.key),
        "" | "Equal" => toleration.key.as_deref() == Some(&taint.key) && wanted == value,
        operator @ ("Lt" | "Gt") => {
            let numbers = value.parse::<i64>().ok().zip(wanted.parse::<i64>().ok());
            toleration.key.as_deref() == Some(&taint.key)
                && numbers.is_some_and(|(found, wanted)| if operator == "Lt" { found < wanted } else { found > wanted })
        }
        _ => false,
    }
}
