use super::*;
use crate::patch::{json::tests::document, merge};
use proptest::prelude::*;
use serde_json::json;

/// A little schema: `maps` merges by `name` (recursively), `set` merges, `replaced` is replaced.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Small;

impl PatchSchema for Small {
    fn field(self, name: &str) -> PatchMeta<Self> {
        PatchMeta {
            merge: matches!(name, "maps" | "set"),
            replace: name == "replaced",
            merge_key: (name == "maps").then_some("name"),
            schema: self,
        }
    }
}

/// No field known: then a strategic merge is a merge patch.
#[derive(Clone, Copy)]
struct Unknown;

impl PatchSchema for Unknown {
    fn field(self, _: &str) -> PatchMeta<Self> {
        PatchMeta { merge: false, replace: false, merge_key: None, schema: self }
    }
}

fn check(current: Value, patch: Value, result: Value) {
    assert_eq!(apply(&current, &patch, Small).expect("applies"), result, "{current} with {patch}");
}

fn names(list: &[&str]) -> Value {
    list.iter().map(|n| json!({"name": n})).collect()
}

#[test]
fn maps_merge_and_nulls_delete() {
    check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}}));
    check(json!({"replaced": {"b": 1}}), json!({"replaced": {"c": 2}}), json!({"replaced": {"c": 2}}));
    check(json!({"list": [1, 2]}), json!({"list": [3]}), json!({"list": [3]}));
    check(json!({}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}}));
    check(json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}}));
}

#[test]
fn lists_of_maps_merge_by_key() {
    let current = json!({"maps": [{"name": "a", "v": 1}, {"name": "b", "v": 2}]});
    check(
        current.clone(),
        json!({"maps": [{"name": "b", "w": 3}, {"name": "c"}]}),
        json!({"maps": [{"name": "a", "v": 1}, {"name": "b", "v": 2, "w": 3}, {"name": "c"}]}),
    );
    check(
        current.clone(),
        json!({"maps": [{"name": "a", "$patch": "delete"}]}),
        json!({"maps": [{"name": "b", "v": 2}]}),
    );
    check(current.clone(), json!({"maps": [{"$patch": "replace"}, {"name": "z"}]}), json!({"maps": [{"name": "z"}]}));
    check(
        current.clone(),
        json!({"maps": [{"name": "a", "v": null}]}),
        json!({"maps": [{"name": "a"}, {"name": "b", "v": 2}]}),
    );
    check(current, json!({"$patch": "replace", "x": {"y": null}}), json!({"x": {}}));
}

#[test]
fn order_of_merged_lists() {
    let current = json!({"maps": names(&["a", "b", "c", "d"])});
    // The patch's order wins among its own; the others stay where they were between them.
    check(current.clone(), json!({"maps": names(&["c", "a"])}), json!({"maps": names(&["b", "c", "a", "d"])}));
    check(current.clone(), json!({"maps": names(&["x", "b"])}), json!({"maps": names(&["x", "a", "b", "c", "d"])}));
    check(
        current.clone(),
        json!({"$setElementOrder/maps": names(&["d", "c", "a"]), "maps": [{"name": "b", "$patch": "delete"}]}),
        json!({"maps": names(&["d", "c", "a"])}),
    );
    check(
        current,
        json!({"$setElementOrder/maps": names(&["c", "n", "a"]), "maps": names(&["n"])}),
        json!({"maps": names(&["b", "c", "n", "a", "d"])}),
    );
    check(
        json!({"set": [1, 2, 3]}),
        json!({"$setElementOrder/set": [3, 4, 1], "set": [4]}),
        json!({"set": [2, 3, 4, 1]}),
    );
    check(json!({}), json!({"$setElementOrder/set": [2, 1]}), json!({}));
    check(json!({}), json!({"$setElementOrder/set": [2, 1], "set": [2, 1]}), json!({"set": [2, 1]}));
}

/// A new element takes the place that a deleted one leaves, so it stays behind what only the server knows.
#[test]
fn order_after_deletions() {
    check(
        json!({"maps": names(&["a", "b", "s"])}),
        json!({"$setElementOrder/maps": names(&["b", "n"]), "maps": [{"name": "n"}, {"name": "a", "$patch": "delete"}]}),
        json!({"maps": names(&["b", "s", "n"])}),
    );
}

/// As many elements as a body of 3 MiB holds: nothing may look at each for each.
#[test]
fn long_lists_merge_in_time() {
    let list = |from: i64| (from..from + 50_000).map(|i| json!({"name": i})).collect::<Vec<_>>();
    let started = std::time::Instant::now();
    let patch = json!({"$setElementOrder/maps": list(10), "maps": list(10), "set": list(0)});
    let merged = apply(&json!({"maps": list(0)}), &patch, Small).expect("applies");
    assert_eq!(merged["maps"].as_array().map(Vec::len), Some(50_010));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn primitives() {
    check(json!({"set": [1, 2]}), json!({"set": [2, 3]}), json!({"set": [1, 2, 3]}));
    check(json!({"set": [1, 2]}), json!({"$deleteFromPrimitiveList/set": [1]}), json!({"set": [2]}));
    // What is new to the server comes first, as upstream has it.
    check(json!({"set": [1, 2]}), json!({"$deleteFromPrimitiveList/set": [1], "set": [3]}), json!({"set": [3, 2]}));
    check(
        json!({"set": [1, 2]}),
        json!({"$deleteFromPrimitiveList/set": [1], "$setElementOrder/set": [3, 2], "set": [3]}),
        json!({"set": [3, 2]}),
    );
    check(json!({}), json!({"$deleteFromPrimitiveList/set": [1]}), json!({}));
}

#[test]
fn retain_keys_clear_the_rest() {
    let current = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    check(
        current.clone(),
        json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
        json!({"strategy": {"type": "Recreate"}}),
    );
    let wrong = apply(&current, &json!({"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}), Small);
    let wrong = wrong.expect_err("refused");
    assert_eq!((wrong.code, wrong.message.as_str()), (400, "invalid patch format of retainKeys"));
}

#[test]
fn directives_never_stay() {
    check(
        json!({}),
        json!({"maps": [{"name": "a", "$patch": "delete"}, {"name": "b", "$retainKeys": ["name"]}],
               "m": {"$patch": "replace", "x": 1}}),
        json!({"maps": [{"name": "b"}]}),
    );
    check(json!({"m": {"y": 1}}), json!({"m": {"$patch": "replace", "x": 1}}), json!({"m": {"x": 1}}));
    check(json!({"m": {"y": 1}}), json!({"m": {"$patch": "delete"}}), json!({"m": {}}));
}

#[test]
fn refusals() {
    for (current, patch, code) in [
        (json!({}), json!([]), 400),
        (json!({"m": {}}), json!({"m": {"$patch": "grow"}}), 400),
        (json!({"maps": names(&["a"])}), json!({"maps": [{"v": 1}]}), 422),
        (json!({"maps": names(&["a"])}), json!({"maps": [1]}), 422),
        (json!({"set": [[1]]}), json!({"set": [[2]]}), 422),
        (json!({"set": [{"a": 1}]}), json!({"set": [{"a": 2}]}), 422),
        (json!({"maps": names(&["a"])}), json!({"maps": [{"name": "a", "$patch": "merge"}]}), 422),
        (json!({}), json!({"$setElementOrder/set": 1}), 400),
        (json!({"set": [1]}), json!({"$deleteFromPrimitiveList/set": 1}), 400),
        (json!({}), json!({"$setElementOrder/maps": names(&["a"]), "maps": names(&["b"])}), 422),
    ] {
        assert_eq!(apply(&current, &patch, Small).map_err(|s| s.code), Err(code), "{current} with {patch}");
    }
}

fn named_list() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-f]", 0..3_i64, 0..6).prop_shuffle_list()
}

trait ShuffleList {
    fn prop_shuffle_list(self) -> BoxedStrategy<Value>;
}

impl<T: Strategy<Value = std::collections::BTreeMap<String, i64>> + 'static> ShuffleList for T {
    fn prop_shuffle_list(self) -> BoxedStrategy<Value> {
        self.prop_map(|m| m.into_iter().map(|(name, v)| json!({"name": name, "v": v})).collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(Value::from)
            .boxed()
    }
}

proptest! {
    #[test]
    fn without_a_schema_it_is_a_merge_patch(current in document(), patch in document()) {
        prop_assume!(current.is_object() && patch.is_object());
        let mut merged = current.clone();
        merge::apply(&mut merged, patch.clone());
        prop_assert_eq!(apply(&current, &patch, Unknown).expect("applies"), merged);
    }

    /// What `kubectl apply` sends: the changed elements, deletions, and the whole wanted order.
    #[test]
    fn an_applied_list_becomes_the_wanted_one(from in named_list(), to in named_list()) {
        let key = |v: &Value| v["name"].clone();
        let (old, new) = (from.as_array().expect("list"), to.as_array().expect("list"));
        let mut patch: Vec<Value> = new.iter().filter(|v| !old.contains(v)).cloned().collect();
        patch.extend(old.iter().filter(|v| !new.iter().any(|n| key(n) == key(v)))
            .map(|v| json!({"name": key(v), "$patch": "delete"})));
        let order: Vec<Value> = new.iter().map(|v| json!({"name": key(v)})).collect();
        let patch = json!({"$setElementOrder/maps": order, "maps": patch});
        prop_assert_eq!(apply(&json!({"maps": from}), &patch, Small).expect("applies"), json!({"maps": to}));
    }

    #[test]
    fn merging_is_idempotent(current in named_list(), patch in named_list()) {
        let patch = json!({"maps": patch});
        let once = apply(&json!({"maps": current}), &patch, Small).expect("applies");
        let twice = apply(&once, &patch, Small).expect("applies");
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn any_patch_is_answered(current in document(), patch in directive_document()) {
        if let Ok(result) = apply(&current, &patch, Small) {
            prop_assert!(!result.to_string().contains('$'), "{}", result);
        }
    }
}

/// Documents full of directives, well-formed or not.
fn directive_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        (0..3_i64).prop_map(Value::from),
        prop::sample::select(vec!["delete", "replace", "merge", "a", "b"]).prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "a",
        "b",
        "name",
        "maps",
        "set",
        "$patch",
        "$retainKeys",
        "$setElementOrder/maps",
        "$setElementOrder/set",
        "$deleteFromPrimitiveList/set",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| m.into_iter().collect()),
        ]
    })
}
