//! structured-merge-diff's behaviours, on a schema made for them.

use super::set::Filter;
use super::typed::{compare, field_set, validate};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// `name`s are scalars; what a field is follows from the first word of its name.
#[derive(Clone, Debug, PartialEq)]
struct Words(Node, String);

impl Words {
    fn root() -> Self {
        Self(Node::Map { atomic: false }, String::new())
    }

    fn of(name: &str) -> Self {
        let node = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "number" => Node::Scalar(Scalar::Number),
            "struct" | "map" => Node::Map { atomic: false },
            "atomicMap" => Node::Map { atomic: true },
            "atomicList" => Node::AtomicList,
            "set" => Node::Set,
            "list" | "ports" => Node::KeyedList,
            "any" => Node::Any,
            _ => Node::Scalar(Scalar::String),
        };
        Self(node, name.to_owned())
    }
}

impl ApplySchema for Words {
    fn node(&self) -> Node {
        self.0
    }
    fn child(&self, name: &str) -> Child<Self> {
        match (self.1.as_str(), name) {
            (map, _) if map.starts_with("map") => Child::Item(Self::of("")),
            (_, "spec") => Child::Always(Self::root()),
            (_, "unknown") => Child::Unknown,
            (_, name) => Child::Field(Self::of(name)),
        }
    }
    fn element(&self) -> Self {
        if self.0 == Node::KeyedList { Self::root() } else { Self::of("") }
    }
    fn keys(&self) -> impl Iterator<Item = &str> {
        if self.1 == "ports" { ["number", "protocol"].iter() } else { ["name"].iter() }.copied()
    }
    fn default(&self, name: &str) -> Option<Value> {
        (name == "protocol").then(|| "TCP".into())
    }
}

struct OneVersion;
impl Versions<Words> for OneVersion {
    fn convert(&self, _: &Value, _: &str) -> Option<(Value, Words)> {
        None
    }
}

/// An object and its owners.
#[derive(Clone, Debug)]
struct State {
    live: Value,
    managers: Managers,
    clock: u32,
}

impl State {
    fn new() -> Self {
        Self { live: json!({}), managers: Managers::default(), clock: 0 }
    }

    fn with<T>(&mut self, manager: &str, run: impl FnOnce(&Context<'_, Words>) -> T) -> T {
        self.clock += 1;
        let now = format!("{:04}", self.clock);
        let nothing = Set::default();
        run(&Context {
            schema: Words::root(),
            api_version: "v1",
            manager,
            subresource: "",
            now: &now,
            filter: Filter::Without(&nothing),
            versions: &OneVersion,
        })
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), Failure> {
        let (live, managers) = (self.live.clone(), self.managers.clone());
        let applied = self.with(manager, |ctx| ctx.apply(&live, &config, &managers, force))?;
        // A root of which nothing is left is none in a kind, which keeps its name.
        self.live = if applied.object.is_null() { json!({}) } else { applied.object };
        self.managers = applied.managers;
        // As the server's decoder does.
        drop_nulls(&mut self.live);
        Ok(())
    }

    fn applied(mut self, manager: &str, config: Value) -> Self {
        self.apply(manager, config, false).unwrap();
        self
    }

    fn updated(mut self, manager: &str, new: Value) -> Self {
        let (live, managers) = (self.live.clone(), self.managers.clone());
        self.managers = self.with(manager, |ctx| ctx.update(&live, &new, managers));
        self.live = new;
        self
    }

    /// Who refuses what.
    fn refused(mut self, manager: &str, config: Value) -> Vec<String> {
        match self.apply(manager, config, false).unwrap_err() {
            Failure::Conflicts(conflicts) => {
                let paths = |e: &Entry| e.set.paths().into_iter().map(|path| set::path_text(&path)).collect::<Vec<_>>();
                conflicts.iter().flat_map(|e| paths(e).into_iter().map(|p| format!("{}{p}", e.manager))).collect()
            }
            Failure::Invalid(why) => vec![why],
        }
    }

    fn owned(&self, manager: &str) -> Vec<String> {
        let entry = self.managers.iter().find(|e| e.manager == manager);
        entry.map(|e| e.set.to_string().lines().map(str::to_owned).collect()).unwrap_or_default()
    }
}

#[test]
fn appliers_share_what_they_agree_on() {
    let state = State::new().applied("a", json!({"x": "1", "number": 1})).applied("b", json!({"x": "1", "y": "2"}));
    assert_eq!(state.live, json!({"x": "1", "number": 1, "y": "2"}));
    assert_eq!(
        (state.owned("a"), state.owned("b")),
        (vec![".number".into(), ".x".into()], vec![".x".into(), ".y".into()])
    );
    assert_eq!(state.clone().refused("b", json!({"x": "other"})), ["a.x"]);
    // What both own goes only with the last of them.
    let state = state.applied("a", json!({"number": 1}));
    assert_eq!(state.live, json!({"x": "1", "number": 1, "y": "2"}));
    let state = state.applied("b", json!({"y": "2"}));
    assert_eq!(state.live, json!({"number": 1, "y": "2"}));
    assert_eq!(state.refused("c", json!({"number": 2, "y": "3"})), ["a.number", "b.y"]);
}

#[test]
fn force_takes_from_the_others() {
    let mut state =
        State::new().applied("a", json!({"x": "1", "y": "1"})).updated("u", json!({"x": "1", "y": "1", "z": "1"}));
    state.apply("b", json!({"x": "2", "z": "2"}), true).unwrap();
    assert_eq!(state.live, json!({"x": "2", "y": "1", "z": "2"}));
    assert_eq!(state.owned("a"), [".y"]);
    assert!(state.owned("u").is_empty(), "an entry that owns nothing goes");
    assert_eq!(state.owned("b"), [".x", ".z"]);
}

#[test]
fn an_update_owns_what_it_changes() {
    let state = State::new().applied("a", json!({"x": "1", "y": "1", "atomicList": ["a"]}));
    let state = state.updated("u", json!({"x": "2", "y": "1", "atomicList": ["a", "b"], "map": {"k": "v"}}));
    assert_eq!(state.owned("a"), [".y"]);
    assert_eq!(state.owned("u"), [".atomicList", ".map", ".x", ".map.k"]);
    let times: Vec<_> = state.managers.iter().map(|e| e.time.clone().unwrap()).collect();
    let same = state.clone().updated("u", state.live.clone());
    assert_eq!(same.managers, state.managers, "an update that changes nothing leaves no trace, nor do times {times:?}");
    let state = state.updated("u", json!({"y": "1"}));
    assert!(state.owned("u").is_empty());
    assert_eq!(state.owned("a"), [".y"]);
}

#[test]
fn what_is_applied_no_more_goes_unless_another_has_it() {
    let first = json!({"struct": {"a": "1", "struct": {"b": "1"}}, "map": {"k": "v", "l": "w"}, "set": ["a", "b"]});
    let state = State::new().applied("a", first);
    let mut live = state.live.clone();
    live["map"]["m"] = "u".into();
    live["struct"]["c"] = "u".into();
    let state = state.updated("u", live).applied("a", json!({"struct": {"a": "1"}, "set": ["b"]}));
    assert_eq!(state.live, json!({"struct": {"a": "1", "c": "u"}, "map": {"m": "u"}, "set": ["b"]}));
    // Nothing of a's is left, but what the other set stays.
    let state = state.applied("a", json!({}));
    assert_eq!(state.live, json!({"struct": {"c": "u"}, "map": {"m": "u"}}));
    assert!(state.owned("a").is_empty());
}

#[test]
fn defaulted_fields_go_with_the_struct_that_was_applied() {
    let state = State::new().applied("a", json!({"struct": {"a": "1"}, "list": [{"name": "n", "x": "1"}]}));
    let mut live = state.live.clone();
    // Nobody owns what the server fills in.
    live["struct"]["default"] = "d".into();
    live["list"][0]["default"] = "d".into();
    let state = State { live, ..state }.applied("a", json!({}));
    assert_eq!(state.live, json!({}), "{:?}", state.managers);
}

#[test]
fn elements_of_keyed_lists_have_owners_of_their_own() {
    let item = |name: &str, x: &str| json!({"name": name, "x": x});
    let state = State::new().applied("a", json!({"list": [item("a", "1"), item("b", "1")]}));
    let state = state.applied("b", json!({"list": [{"name": "b", "y": "2"}, item("c", "1")]}));
    assert_eq!(state.live, json!({"list": [item("a", "1"), {"name": "b", "x": "1", "y": "2"}, item("c", "1")]}));
    let owned = [".list[name=\"b\"]", ".list[name=\"c\"]", ".list[name=\"b\"].name", ".list[name=\"b\"].y"];
    assert_eq!(state.owned("b")[..4], owned);
    assert_eq!(state.clone().refused("c", json!({"list": [item("b", "9")]})), ["a.list[name=\"b\"].x"]);
    let state = state.applied("a", json!({"list": [item("a", "1")]}));
    assert_eq!(state.live, json!({"list": [item("a", "1"), {"name": "b", "y": "2"}, item("c", "1")]}));
    let state = state.applied("b", json!({}));
    assert_eq!(state.live, json!({"list": [item("a", "1")]}));
}

#[test]
fn keys_have_defaults() {
    let state = State::new().applied("a", json!({"ports": [{"number": 80}, {"number": 80, "protocol": "UDP"}]}));
    let tcp = ".ports[number=80,protocol=\"TCP\"]";
    assert!(state.owned("a").contains(&tcp.to_owned()), "{:?}", state.owned("a"));
    let defaulted = json!({"ports": [{"number": 80, "protocol": "TCP"}, {"number": 80, "protocol": "UDP"}]});
    let state = State { live: defaulted, ..state }.applied("a", json!({"ports": [{"number": 80, "name": "http"}]}));
    assert_eq!(state.live, json!({"ports": [{"number": 80, "protocol": "TCP", "name": "http"}]}));
    let twice = json!({"ports": [{"number": 80}, {"number": 80, "protocol": "TCP"}]});
    assert_eq!(state.refused("b", twice), [".ports: duplicate entries for key [number=80,protocol=\"TCP\"]"]);
    let keyless = State::new().refused("b", json!({"list": [{"x": "1"}]}));
    assert_eq!(
        keyless,
        [
            ".list: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
        ]
    );
}

#[test]
fn sets_merge_and_atoms_do_not() {
    let state = State::new().applied("a", json!({"set": ["a", "b"], "atomicMap": {"a": "1"}}));
    let state = state.applied("b", json!({"set": ["c", "b"]}));
    assert_eq!(state.live["set"], json!(["a", "c", "b"]));
    assert_eq!(state.clone().refused("b", json!({"atomicMap": {"a": "1", "b": "1"}})), ["a.atomicMap"]);
    let state = state.applied("a", json!({"set": ["b"], "atomicMap": {"b": "2"}}));
    assert_eq!(state.live, json!({"set": ["c", "b"], "atomicMap": {"b": "2"}}));
    // An applier's order wins among its own.
    let state =
        State::new().applied("a", json!({"set": ["1", "2", "3", "4"]})).applied("a", json!({"set": ["4", "2", "1"]}));
    assert_eq!(state.live, json!({"set": ["4", "2", "1"]}));
}

#[test]
fn what_a_client_left_twice_in_a_list_is_one_thing() {
    let twice = json!({"list": [{"name": "a", "x": "1"}, {"name": "a", "x": "2"}, {"name": "b"}]});
    let state = State::new().updated("u", twice.clone());
    assert_eq!(state.owned("u"), [".list", ".list[name=\"a\"]", ".list[name=\"b\"]", ".list[name=\"b\"].name"]);
    let state = state.applied("a", json!({"list": [{"name": "c"}]}));
    assert_eq!(state.live["list"].as_array().unwrap().len(), 4, "others leave them alone");
    let mut forced = state;
    forced.apply("a", json!({"list": [{"name": "a", "x": "3"}]}), true).unwrap();
    assert_eq!(forced.live, json!({"list": [{"name": "a", "x": "3"}, {"name": "b"}]}));
    let state =
        State::new().updated("u", twice).updated("v", json!({"list": [{"name": "a", "x": "1"}, {"name": "b"}]}));
    assert!(state.owned("v").contains(&".list[name=\"a\"].x".to_owned()));
}

#[test]
fn without_a_schema_the_value_tells() {
    let state = State::new().applied("a", json!({"any": {"deep": {"x": 1}, "list": [1, {"a": 2}]}}));
    assert_eq!(state.owned("a"), [".any.deep", ".any.list", ".any.deep.x"]);
    let state = state.applied("b", json!({"any": {"deep": {"y": 1}}}));
    assert_eq!(state.live["any"]["deep"], json!({"x": 1, "y": 1}));
    assert_eq!(state.clone().refused("b", json!({"any": {"list": []}})), ["a.any.list"]);
    let turned = state.updated("u", json!({"any": {"deep": "text", "list": [1]}}));
    assert_eq!(turned.owned("u"), [".any.deep", ".any.list"]);
    assert!(turned.owned("b").is_empty());
}

#[test]
fn a_first_apply_over_an_object_without_owners_leaves_them_one() {
    let state = State { live: json!({"x": "1", "spec": {"y": "1"}}), ..State::new() };
    assert_eq!(state.clone().refused("a", json!({"x": "2"})), ["before-first-apply.x"]);
    let state = state.applied("a", json!({"x": "1"}));
    assert_eq!(state.owned("before-first-apply"), [".x", ".spec.y"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_its_own() {
    let config = json!({"apiVersion": "v1", "x": "1", "y": "1"});
    let mut live = config.clone();
    live["metadata"] = json!({"annotations": {}});
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    live["struct1"] = json!({});
    let mut state = State::new();
    // Annotations are granular here as they are for every kind.
    live["metadata"]["annotations"][annotation] = config.to_string().into();
    state = state.updated("kubectl-client-side-apply", live.clone());
    live["y"] = "2".into();
    state = state.updated("somebody", live);
    let wanted = json!({"apiVersion": "v1", "x": "changed"});
    assert_eq!(state.clone().refused("other", wanted.clone()), ["kubectl-client-side-apply.x"]);
    assert_eq!(state.clone().refused("kubectl", json!({"x": "c", "y": "3"})), ["somebody.y"]);
    let state = state.applied("kubectl", wanted.clone());
    assert_eq!(state.live["x"], "changed");
    assert_eq!(state.live["metadata"]["annotations"][annotation], format!("{wanted}\n"));
}

#[test]
fn too_many_updaters_are_folded_into_one() {
    let mut state = State::new();
    for i in 0..14 {
        let mut new = state.live.clone();
        new[format!("x{i}")] = "1".into();
        state = state.updated(&format!("u{i:02}"), new);
    }
    let names: Vec<&str> = state.managers.iter().map(|e| e.manager.as_str()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(state.owned("ancient-changes"), [".x0", ".x1", ".x2", ".x3", ".x4"]);
    let time = state.managers.iter().find(|e| e.manager == "ancient-changes").and_then(|e| e.time.clone());
    assert_eq!(time.as_deref(), Some("0005"));
}

#[test]
fn what_became_atomic_is_owned_as_a_whole() {
    let old = json!([{"manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:atomicMap": {"f:a": {}}, "f:atomicList": {"k:{\"name\":\"n\"}": {".": {}, "f:x": {}}}, "f:x": {}}}]);
    let live = json!({"atomicMap": {"a": "1"}, "atomicList": [{"name": "n", "x": "1"}], "x": "1"});
    let state = State { live, managers: Managers::decode(&old).unwrap(), clock: 0 };
    assert_eq!(state.clone().refused("b", json!({"atomicMap": {"b": "1"}})), ["a.atomicMap"]);
    assert_eq!(state.applied("a", json!({"x": "1"})).live, json!({"x": "1"}));
}

#[test]
fn times_tell_when_something_changed() {
    let time = |state: &State, who: &str| state.managers.iter().find(|e| e.manager == who).and_then(|e| e.time.clone());
    let state = State::new().applied("a", json!({"x": "1"}));
    assert_eq!(time(&state, "a").as_deref(), Some("0001"));
    let state = state.applied("a", json!({"x": "1"}));
    assert_eq!(time(&state, "a").as_deref(), Some("0001"));
    let state = state.applied("a", json!({"x": "2"}));
    assert_eq!(time(&state, "a").as_deref(), Some("0003"));
}

#[test]
fn conflicts_read_as_upstreams() {
    let mut state = State::new().updated("one", json!({"x": "1", "struct": {"y": "1"}, "z": "1"}));
    state = state.applied("two", json!({"z": "1", "w": "1"}));
    let failure = state.apply("three", json!({"x": "2"}), false).unwrap_err().status("");
    assert_eq!((failure.code, failure.reason), (409, crate::Reason::Conflict));
    assert_eq!(failure.message, "Apply failed with 1 conflict: conflict with \"one\" using v1: .x");
    let failure =
        state.apply("three", json!({"struct": {"y": "2"}, "z": "2", "x": "2"}), false).unwrap_err().status("");
    let wanted = [
        "Apply failed with 4 conflicts: conflicts with \"one\" using v1:",
        "- .x",
        "- .z",
        "- .struct.y",
        "conflicts with \"two\":",
        "- .z",
    ];
    assert_eq!(failure.message, wanted.join("\n"));
    let cause = &failure.causes[3];
    assert_eq!((cause.reason.as_str(), cause.message.as_str()), ("FieldManagerConflict", "conflict with \"two\""));
    assert_eq!(cause.field, ".z");
    let invalid =
        state.apply("a", json!({"unknown": 1, "number": "x"}), false).unwrap_err().status("default/a; v1, Kind=A");
    assert_eq!(
        (invalid.code, invalid.message.as_str()),
        (
            500,
            "failed to create typed patch object (default/a; v1, Kind=A): errors:\n  .number: expected numeric (int or float), got string\n  .unknown: field not declared in schema"
        )
    );
}

#[test]
fn a_refused_apply_names_each_owner_once() {
    let all = |value: &str| json!({"map": (0..3000).map(|i| (format!("k{i}"), value.into())).collect::<serde_json::Map<_, _>>()});
    let mut state = State::new().applied("a", all("1"));
    let Err(Failure::Conflicts(conflicts)) = state.apply("b", all("2"), false) else { panic!("it is refused") };
    assert_eq!(conflicts.iter().map(|e| (e.manager.as_str(), e.set.paths().len())).collect::<Vec<_>>(), [("a", 3000)]);
    assert_eq!(Failure::Conflicts(conflicts).status("").causes.len(), 3000);
}

#[test]
fn long_lists_are_checked_in_no_time() {
    let items = |count: usize| json!({"set": (0..count).map(|i| i.to_string()).collect::<Vec<_>>()});
    let began = std::time::Instant::now();
    assert!(validate(&Words::root(), &items(40_000)).is_empty());
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// Every version is as the first, but for `gone`.
#[derive(Default)]
struct Counted(std::cell::Cell<usize>);
impl Versions<Words> for Counted {
    fn convert(&self, object: &Value, version: &str) -> Option<(Value, Words)> {
        self.0.set(self.0.get() + 1);
        (version != "gone").then(|| (object.clone(), Words::root()))
    }
}

#[test]
fn each_version_is_converted_once() {
    let entry = |i: usize| {
        json!({"manager": format!("m{i}"), "operation": "Apply", "apiVersion": if i.is_multiple_of(2) { "v2" } else { "gone" },
               "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}, "f:y": {}}})
    };
    let managers = Managers::decode(&(0..100).map(entry).collect()).unwrap();
    let (versions, nothing) = (Counted::default(), Set::default());
    let context = Context {
        schema: Words::root(),
        api_version: "v1",
        manager: "u",
        subresource: "",
        now: "1",
        filter: Filter::Without(&nothing),
        versions: &versions,
    };
    let left = context.update(&json!({"x": "1", "y": "1"}), &json!({"x": "2", "y": "1"}), managers);
    assert_eq!(left.iter().count(), 51, "those of no version go");
    assert!(left.iter().filter(|e| e.manager != "u").all(|e| e.set == Set::of(&[&["y"]])));
    assert!(versions.0.get() <= 6, "{}", versions.0.get());
}

#[test]
fn entries_folded_keep_all_fields() {
    let entry = |i: usize| {
        // As old as those it is among, and neither the first nor the last of them.
        let name = if i == 2 { "ancient-changes".to_owned() } else { format!("{}{i}", if i < 2 { 'a' } else { 'b' }) };
        json!({"manager": name, "operation": "Update", "apiVersion": "v1", "time": "0000",
               "fieldsType": "FieldsV1", "fieldsV1": {format!("f:x{i}"): {}}})
    };
    let managers = Managers::decode(&(0..30).map(entry).collect()).unwrap();
    let mut state = State { live: json!({}), managers, clock: 0 };
    state = state.updated("u", json!({"y": "1"}));
    assert_eq!(state.managers.iter().count(), 10);
    let all = Set::union_of(&state.managers.iter().map(|e| &e.set).collect::<Vec<_>>());
    assert_eq!(all.paths().len(), 31);
}

fn configs() -> impl Strategy<Value = Value> {
    let word = || prop::sample::select(vec!["a", "b", "c"]);
    let words = || prop::collection::btree_set(word(), 0..3);
    let maps = prop::collection::btree_map(word(), word(), 0..3);
    let items = prop::collection::btree_map(word(), prop::option::of(word()), 0..3);
    let (set, list) = (words(), words());
    (maps.clone(), maps, items, set, list, prop::option::of(word())).prop_map(|(map, atomic, items, set, list, x)| {
        let items: Vec<Value> = items
            .iter()
            .map(|(name, x)| x.map_or_else(|| json!({"name": name}), |x| json!({"name": name, "x": x})))
            .collect();
        let mut out =
            json!({"struct": {"map": map, "set": set, "list": items}, "atomicMap": atomic, "atomicList": list});
        // An empty list or map is as good as absent for a server of structs.
        if let Some(x) = x {
            out["x"] = x.into();
        }
        prune(&mut out);
        out
    })
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(drop_nulls);
        map.retain(|_, v| !v.is_null());
    }
}

fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(prune);
        map.retain(|_, v| {
            !(v.as_object().is_some_and(serde_json::Map::is_empty) || v.as_array().is_some_and(Vec::is_empty))
        });
    }
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(configs in prop::collection::vec((0..3_usize, configs()), 1..6)) {
        let mut state = State::new();
        for (who, config) in configs {
            let who = ["a", "b", "c"][who];
            state.apply(who, config.clone(), true).unwrap();
            // What was applied is there, and owned.
            let schema = Words::root();
            let compared = compare(&schema, &config, &state.live);
            prop_assert!(compared.modified.is_empty() && compared.removed.is_empty(), "{config} in {}", state.live);
            let own = field_set(&schema, &config);
            prop_assert_eq!(state.owned(who).join("\n"), own.to_string());
            // Everything has an owner: nothing is left behind.
            let all = state.managers.iter().fold(Set::default(), |all, e| all.union(&e.set));
            prop_assert_eq!(field_set(&schema, &state.live).to_string(), all.to_string());
            let mut again = state.clone();
            again.apply(who, config, false).unwrap();
            prop_assert_eq!(&again.live, &state.live);
            prop_assert_eq!(&again.managers, &state.managers);
            // Stored and read it is the same.
            let stored = state.managers.clone().encode().unwrap_or_default();
            let read = Managers::decode(&stored).unwrap();
            prop_assert_eq!(read.encode().unwrap_or_default(), stored);
        }
    }

    #[test]
    fn a_comparison_is_what_it_takes(old in configs(), new in configs()) {
        let schema = Words::root();
        let compared = compare(&schema, &old, &new);
        prop_assert!(compare(&schema, &new, &new).changed().is_empty());
        let back = compare(&schema, &new, &old);
        prop_assert_eq!(compared.added.to_string(), back.removed.to_string());
        prop_assert_eq!(compared.modified.to_string(), back.modified.to_string());
        prop_assert!(compared.added.intersection(&compared.modified).is_empty());
        let taken = compared.added.intersection(&field_set(&schema, &new));
        let (mut less, all) = (compared.added.clone(), compared.added.difference(&taken));
        less.subtract(&taken);
        prop_assert_eq!(less, all);
    }
}
