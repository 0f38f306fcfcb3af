//! What a namespace that cannot go yet tells about why.

use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Remains;

struct Told {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The conditions as they should read, or `None` where they already do.
pub(super) fn update(
    present: &[NamespaceCondition],
    remains: &Remains,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let mut conditions = present.to_vec();
    let mut changed = false;
    for told in tell(remains) {
        let status = if told.holds { "True" } else { "False" };
        let at = conditions.iter().position(|condition| condition.type_ == told.kind);
        let found = at.and_then(|at| conditions.get(at));
        if found.is_some_and(|c| c.status == status && c.message.as_deref() == Some(&told.message)) {
            continue;
        }
        let since = found.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: told.kind.to_owned(),
            status: status.to_owned(),
            reason: Some(told.reason.to_owned()),
            message: Some(told.message),
            last_transition_time: since.or(Some(Time(now))),
        };
        match at {
            Some(at) => conditions.splice(at..=at, [condition]).for_each(drop),
            None => conditions.push(condition),
        }
        changed = true;
    }
    changed.then_some(conditions)
}

fn tell(remains: &Remains) -> [Told; 5] {
    let told = |kind, holds, reasons: (&'static str, &'static str), bad: String, good: &str| Told {
        kind,
        holds,
        reason: if holds { reasons.0 } else { reasons.1 },
        message: if holds { bad } else { good.to_owned() },
    };
    let objects: Vec<_> =
        remains.objects.iter().map(|(kind, count)| format!("{kind} has {count} resource instances")).collect();
    let held: Vec<_> =
        remains.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    [
        told(
            "NamespaceDeletionDiscoveryFailure",
            !remains.undiscovered.is_empty(),
            ("DiscoveryFailed", "ResourcesDiscovered"),
            format!("Discovery failed for some groups: {}", remains.undiscovered.join("; ")),
            "All resources successfully discovered",
        ),
        told(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("GroupVersionParsingFailed", "ParsedGroupVersions"),
            String::new(),
            "All legacy kube types successfully parsed",
        ),
        told(
            "NamespaceDeletionContentFailure",
            !remains.failures.is_empty(),
            ("ContentDeletionFailed", "ContentDeleted"),
            format!("Failed to delete all resource types: {}", remains.failures.join("; ")),
            "All content successfully deleted, may be waiting on finalization",
        ),
        told(
            "NamespaceContentRemaining",
            !objects.is_empty(),
            ("SomeResourcesRemain", "ContentRemoved"),
            format!("Some resources are remaining: {}", objects.join(", ")),
            "All content successfully removed",
        ),
        told(
            "NamespaceFinalizersRemaining",
            !held.is_empty(),
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            format!("Some content in the namespace has finalizers remaining: {}", held.join(", ")),
            "All content-preserving finalizers finished",
        ),
    ]
}
