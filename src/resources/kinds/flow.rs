//! FlowSchema and PriorityLevelConfiguration, and those of them that every cluster has. How requests are kept apart here
//! is not configured by them.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, int, list, text_or};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{FieldError, Meta, names};
use serde_json::{Value, json};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(crate) const SCHEMA: Hooks = Hooks {
    default: |v| defaults::apply(&[("spec.matchingPrecedence", Default::NonZero(1000))], v),
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        schema(v, errors);
        mandatory(v, "FlowSchema", errors);
        conditions(v, errors);
    },
    columns: &[
        NAME,
        Column::text("PriorityLevel", "Priority level of the requests."),
        Column::text("MatchingPrecedence", "Of the schemas that match, the lowest decides."),
        Column::text("DistinguisherMethod", "What tells one flow from another."),
        AGE,
        Column::text("MissingPL", "Whether the priority level is missing."),
    ],
    cells: |v, now| {
        let dangling = list(v, &["status", "conditions"]).iter().find(|c| c.text(&["type"]) == "Dangling");
        vec![
            columns::name(v),
            v.text(&["spec", "priorityLevelConfiguration", "name"]).into(),
            int(v, &["spec", "matchingPrecedence"]).into(),
            text_or(v, &["spec", "distinguisherMethod", "type"], NONE),
            columns::age(v, now),
            dangling.map_or("?", |condition| condition.text(&["status"])).into(),
        ]
    },
    rank: |v| int(v, &["spec", "matchingPrecedence"]),
    generation: true,
    ..Hooks::NONE
};

pub(crate) const LEVEL: Hooks = Hooks {
    default: |v| {
        const TABLE: Table = &[
            ("spec.limited.nominalConcurrencyShares", Default::Int(30)),
            ("spec.limited.lendablePercent", Default::Int(0)),
            ("spec.limited.limitResponse.queuing.queues", Default::NonZero(64)),
            ("spec.limited.limitResponse.queuing.handSize", Default::NonZero(8)),
            ("spec.limited.limitResponse.queuing.queueLengthLimit", Default::NonZero(50)),
            ("spec.exempt.nominalConcurrencyShares", Default::Int(0)),
            ("spec.exempt.lendablePercent", Default::Int(0)),
        ];
        defaults::apply(TABLE, v);
    },
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        level(v, errors);
        mandatory(v, "PriorityLevelConfiguration", errors);
        conditions(v, errors);
    },
    columns: &[
        NAME,
        Column::text("Type", "Whether requests of this level are limited."),
        Column::text("NominalConcurrencyShares", "Share of the seats."),
        Column::text("Queues", "Queues of this level."),
        Column::text("HandSize", "Queues that one flow may use."),
        Column::text("QueueLengthLimit", "Requests that may wait in a queue."),
        AGE,
    ],
    cells: |v, now| {
        let number = |path: &[&str]| {
            let value = path.iter().try_fold(v, |v, name| v.get(name)).and_then(Value::as_i64);
            value.map_or_else(|| NONE.into(), Value::from)
        };
        let queuing = |field| number(&["spec", "limited", "limitResponse", "queuing", field]);
        vec![
            columns::name(v),
            v.text(&["spec", "type"]).into(),
            number(&["spec", "limited", "nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

fn conditions(v: &Value, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for condition in At::root(v).get("status").get("conditions").items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            errors.push(kind.duplicate());
        }
        if kind.is_empty() {
            errors.push(kind.required("must not be empty"));
        }
    }
}

/// The objects without which no request would have a level may not be changed.
fn mandatory(v: &Value, kind: &str, errors: &mut Errors) {
    let fixed =
        bootstrap_flow(true).into_iter().find(|fixed| fixed.text(&["kind"]) == kind && fixed.name() == v.name());
    if let Some(fixed) = fixed
        && v.get("spec") != fixed.get("spec")
    {
        let spec = At::root(v).get("spec");
        errors.push(spec.invalid(format!("spec of '{}' must equal the fixed value", v.name())));
    }
}

fn schema(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let precedence = spec.get("matchingPrecedence");
    match precedence.int().unwrap_or(0) {
        ..=0 => errors.push(FieldError::invalid(
            &precedence.path,
            precedence.int().unwrap_or(0),
            "must be a positive value",
        )),
        1 if v.name() != "exempt" => {
            errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
        }
        n if n > PRECEDENCE_MAX => {
            errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")));
        }
        _ => {}
    }
    let method = spec.get("distinguisherMethod");
    if method.is_set() && !matches!(method.get("type").text(), "ByNamespace" | "ByUser") {
        // Upstream shows the method, not its type.
        let path = method.path.child("type");
        errors.push(FieldError::not_supported(&path, method.value.clone(), &["ByNamespace", "ByUser"]));
    }
    let level = spec.get("priorityLevelConfiguration").get("name");
    if level.is_empty() {
        errors.push(level.required("must reference a priority level"));
    } else {
        level.messages(names::is_dns1123_subdomain(level.text()), errors);
    }
    for rule in spec.get("rules").items() {
        let (subjects, resources, paths) =
            (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
        if subjects.is_empty() {
            errors.push(subjects.required("subjects must contain at least one value"));
        }
        subjects.items().iter().for_each(|s| subject(s, errors));
        if resources.is_empty() && paths.is_empty() {
            errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
        }
        resources.items().iter().for_each(|r| resource_rule(r, errors));
        paths.items().iter().for_each(|r| path_rule(r, errors));
    }
}

fn subject(at: &At<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = at.get("kind");
    let Some((_, own)) = KINDS.iter().find(|(k, _)| *k == kind.text()) else {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), &["Group", "ServiceAccount", "User"]));
        return;
    };
    let named = at.get(own);
    let name = named.get("name");
    if !named.is_set() {
        errors.push(named.required(&format!("{own} is required when subject kind is '{}'", kind.text())));
    } else if name.is_empty() {
        errors.push(name.required(""));
    } else if *own == "serviceAccount" && name.text() != "*" {
        name.messages(names::is_dns1123_subdomain(name.text()), errors);
    }
    if named.is_set() && *own == "serviceAccount" {
        let namespace = named.get("namespace");
        if namespace.is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            namespace.messages(names::is_dns1123_label(namespace.text()), errors);
        }
    }
    // Upstream looks at the account first and at the group last.
    for field in ["serviceAccount", "user", "group"].iter().filter(|f| *f != own) {
        if at.get(field).is_set() {
            let kind = KINDS.iter().find(|(_, f)| f == field).map_or("", |(k, _)| *k);
            errors.push(at.get(field).forbidden(&format!("{field} is forbidden when subject kind is not '{kind}'")));
        }
    }
}

fn starred(at: &At<'_>) -> bool {
    at.items().iter().any(|item| item.text() == "*")
}

fn verbs(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required("verbs must contain at least one value"));
    } else if starred(at) {
        if at.items().len() > 1 {
            errors.push(at.invalid("if '*' is present, must not specify other verbs"));
        }
    } else if !at.items().iter().all(|verb| VERBS.contains(&verb.text())) {
        errors.push(at.not_supported(&VERBS));
    }
}

fn resource_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.get("verbs"), errors);
    for (field, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let field = at.get(field);
        if field.is_empty() {
            errors.push(field.required(&format!("resource rules must supply at least one {one}")));
        } else if field.items().len() > 1 && starred(&field) {
            errors.push(field.invalid(format!("if '*' is present, must not specify other {many}")));
        }
    }
    let namespaces = at.get("namespaces");
    if namespaces.is_empty() && !at.get("clusterScope").is_true() {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(namespaces.required(detail));
    } else if starred(&namespaces) {
        if namespaces.items().len() > 1 {
            errors.push(namespaces.invalid("if '*' is present, must not specify other namespaces"));
        }
    } else {
        for namespace in namespaces.items() {
            for message in names::is_dns1123_label(namespace.text()) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.push(namespace.invalid(detail));
            }
        }
    }
}

fn path_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.get("verbs"), errors);
    let paths = at.get("nonResourceURLs");
    if paths.is_empty() {
        errors.push(paths.required("nonResourceURLs must contain at least one value"));
    } else if starred(&paths) {
        if paths.items().len() > 1 {
            errors.push(paths.invalid("if '*' is present, must not specify other non-resource URLs"));
        }
    } else {
        for path in paths.items() {
            match path.text() {
                "" => errors.push(path.invalid("must not be empty")),
                "/" => {}
                text if !text.starts_with('/') => errors.push(path.invalid("must start with slash")),
                text if text.contains(' ') => errors.push(path.invalid("must not contain white-space")),
                text if text.contains("//") => errors.push(path.invalid("must not contain double slash")),
                text if text.strip_suffix('*').unwrap_or(text).contains('*')
                    || text.ends_with('*') && !text.ends_with("/*") =>
                {
                    errors.push(path.invalid("wildcard can only do suffix matching"));
                }
                _ => {}
            }
        }
    }
}

fn level(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (v.name() == "exempt") != (kind.text() == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(&kind.path, kind.text(), detail));
    }
    let percent = |at: &At<'_>, errors: &mut Errors| {
        let lendable = at.get("lendablePercent");
        if lendable.int().is_some_and(|n| !(0..=100).contains(&n)) {
            errors.push(lendable.invalid("must be between 0 and 100, inclusive"));
        }
    };
    match kind.text() {
        "Exempt" => {
            if limited.is_set() {
                errors.push(limited.forbidden("must be nil if the type is Exempt"));
            }
            if exempt.is_set() {
                let shares = exempt.get("nominalConcurrencyShares");
                if shares.int().is_some_and(|n| n < 0) {
                    errors.push(shares.invalid("must be a non-negative integer"));
                }
                percent(&exempt, errors);
            }
        }
        "Limited" => {
            if exempt.is_set() {
                errors.push(exempt.forbidden("must be nil if the type is Limited"));
            }
            if limited.is_set() {
                let shares = limited.get("nominalConcurrencyShares");
                if shares.int().is_some_and(|n| n < 0) {
                    errors.push(shares.invalid("must be a non-negative integer"));
                }
                response(&limited.get("limitResponse"), errors);
                percent(&limited, errors);
                let borrowing = limited.get("borrowingLimitPercent");
                if borrowing.int().is_some_and(|n| n < 0) {
                    errors.push(borrowing.invalid("if specified, must be a non-negative integer"));
                }
            } else {
                errors.push(limited.required("must not be empty when type is Limited"));
            }
        }
        _ => errors.push(FieldError::not_supported(&kind.path, kind.text(), &["Exempt", "Limited"])),
    }
}

fn response(at: &At<'_>, errors: &mut Errors) {
    let (kind, queuing) = (at.get("type"), at.get("queuing"));
    match (kind.text(), queuing.is_set()) {
        ("Reject", true) => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
        }
        ("Queue", false) => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
        }
        ("Queue", true) => {
            let number = |field| (queuing.get(field), queuing.get(field).int().unwrap_or(0));
            let mut positive = |(at, n): &(At<'_>, i64)| {
                if *n <= 0 {
                    errors.push(FieldError::invalid(&at.path, *n, "must be positive"));
                }
            };
            let (limit, queues, hand) = (number("queueLengthLimit"), number("queues"), number("handSize"));
            positive(&limit);
            positive(&queues);
            if queues.1 > QUEUES_MAX {
                errors.push(queues.0.invalid(format!("must not be greater than {QUEUES_MAX}")));
            }
            if hand.1 <= 0 {
                errors.push(FieldError::invalid(&hand.0.path, hand.1, "must be positive"));
            } else if hand.1 > queues.1 {
                let detail = format!("should not be greater than queues ({})", queues.1);
                errors.push(hand.0.invalid(detail));
            } else if entropy(queues.1, hand.1) > 60 {
                let detail = format!(
                    "required entropy bits of deckSize {} and handSize {} should not be greater than 60",
                    queues.1, hand.1
                );
                errors.push(hand.0.invalid(detail));
            }
        }
        ("Reject", false) => {}
        _ => errors.push(FieldError::not_supported(&kind.path, kind.text(), &["Queue", "Reject"])),
    }
}

/// Bits that it takes to deal a hand of cards from a deck.
fn entropy(deck: i64, hand: i64) -> u32 {
    let mut product = 1_f64;
    for i in 0..hand.min(deck).min(64) {
        product *= (deck - i) as f64;
    }
    product.log2().ceil() as u32
}

/// The objects that upstream makes at its start: those that must be, or those that are suggested.
#[must_use]
pub fn bootstrap_flow(must: bool) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut level = |name: &str, spec: Value| objects.push(object("PriorityLevelConfiguration", name, spec));
    if must {
        level("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}));
        level(
            "catch-all",
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0,
            "limitResponse": {"type": "Reject"}}}),
        );
    } else {
        for (name, shares, lendable, queues, hand) in [
            ("system", 30, 33, 64, 6),
            ("node-high", 40, 25, 64, 6),
            ("leader-election", 10, 0, 16, 4),
            ("workload-high", 40, 50, 128, 6),
            ("workload-low", 100, 90, 128, 6),
            ("global-default", 20, 50, 128, 6),
        ] {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
            level(
                name,
                json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares,
                "lendablePercent": lendable, "limitResponse": {"type": "Queue", "queuing": queuing}}}),
            );
        }
    }
    for (name, level, precedence, method, rule) in schemas(must) {
        let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
            "rules": [rule]});
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        objects.push(object("FlowSchema", name, spec));
    }
    objects
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let annotations = json!({"apf.kubernetes.io/autoupdate-spec": "true"});
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

type Schema = (&'static str, &'static str, i64, &'static str, Value);

fn schemas(must: bool) -> Vec<Schema> {
    let groups = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
    };
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let accounts = json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}});
    let resources = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let all = |subjects: Vec<Value>| {
        json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
    };
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    if must {
        return vec![
            ("exempt", "exempt", 1, "", all(groups(&["system:masters"]))),
            ("catch-all", "catch-all", 10_000, by_user, all(everybody())),
        ];
    }
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let probes = json!({"subjects": everybody(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let election = json!({"subjects": [user(manager), user(scheduler), accounts],
        "resourceRules": [leases(&["get", "create", "update"])]});
    let nodes = json!({"subjects": groups(&["system:nodes"]),
        "resourceRules": [resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]});
    vec![
        ("probes", "exempt", 2, "", probes),
        ("system-leader-election", "leader-election", 100, by_user, election),
        ("system-node-high", "node-high", 400, by_user, nodes),
        ("system-nodes", "system", 500, by_user, all(groups(&["system:nodes"]))),
        ("kube-controller-manager", "workload-high", 800, by_namespace, all(vec![user(manager)])),
        ("kube-scheduler", "workload-high", 800, by_namespace, all(vec![user(scheduler)])),
        ("kube-system-service-accounts", "workload-high", 900, by_namespace, all(vec![accounts.clone()])),
        ("service-accounts", "workload-low", 9000, by_user, all(groups(&["system:serviceaccounts"]))),
        ("global-default", "global-default", 9900, by_user, all(everybody())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server makes at its start must be what it accepts, and already as it would be stored.
    #[test]
    fn the_first_objects_are_valid_and_whole() {
        for made in [bootstrap_flow(true), bootstrap_flow(false)].concat() {
            let plural = format!("{}s", made.text(&["kind"]).to_lowercase());
            let row = crate::Registry::builtin().get("flowcontrol.apiserver.k8s.io", "v1", &plural).unwrap();
            let mut v = made.clone();
            assert_eq!(row.normalize(&mut v).unwrap(), Vec::<String>::new());
            row.default(&mut v);
            assert_eq!(v["spec"], made["spec"], "{}", made.name());
            assert_eq!(row.validate(&v), [], "{}", made.name());
        }
        let mut exempt = bootstrap_flow(true).remove(0);
        exempt["spec"]["exempt"]["lendablePercent"] = 1.into();
        let row = crate::Registry::builtin().get("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations");
        let said: Vec<String> = row.unwrap().validate(&exempt).iter().map(ToString::to_string).collect();
        assert!(said[0].ends_with("spec of 'exempt' must equal the fixed value"), "{said:?}");
    }
}
