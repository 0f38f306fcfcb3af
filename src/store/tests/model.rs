//! Random operations, crashes and clean restarts against a plain map.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(bool, u8, Wanted)>),
    Crash,
    Restart,
    Fail,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Any,
    Absent,
    Right,
    Wrong,
}

const KEYS: [&str; 6] = ["/a", "/b/1", "/b/2", "/b/3", "/lazy/1", "/lazy/2"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wanted = prop_oneof![Just(Wanted::Any), Just(Wanted::Absent), Just(Wanted::Right), Just(Wanted::Wrong)];
    let op = (any::<bool>(), 0..6u8, wanted);
    let ops = proptest::collection::vec(op, 1..4).prop_map(|mut ops| {
        let mut seen = BTreeSet::new();
        ops.retain(|(_, key, _)| seen.insert(*key));
        Step::Write(ops)
    });
    let step = prop_oneof![20 => ops, 1 => Just(Step::Crash), 1 => Just(Step::Restart), 1 => Just(Step::Fail)];
    proptest::collection::vec(step, 1..60)
}

type Values = BTreeMap<&'static str, (Vec<u8>, u64)>;

#[derive(Default)]
struct Model {
    now: Values,
    /// What a crash leaves.
    durable: Values,
}

fn contents(store: &Store) -> BTreeMap<String, (Vec<u8>, u64)> {
    store.snapshot().range("", None).map(|e| (e.key.to_string(), (e.bytes.to_vec(), e.revision))).collect()
}

fn named(values: &Values) -> BTreeMap<String, (Vec<u8>, u64)> {
    values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

async fn write(store: &Store, model: &mut Model, ops: &[(bool, u8, Wanted)], fail: bool) {
    let mut accepted = true;
    let mut request = Vec::new();
    for (is_put, key, wanted) in ops {
        let key = KEYS[*key as usize];
        let current = model.now.get(key).map(|(_, revision)| *revision);
        let expect = match wanted {
            Wanted::Any => Expect::Any,
            Wanted::Absent => Expect::Absent,
            Wanted::Right => Expect::Revision(current.unwrap_or(1)),
            Wanted::Wrong => Expect::Revision(current.unwrap_or(0) + 1),
        };
        accepted &= match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current == Some(revision),
        };
        request.push(if *is_put { put(key, expect, "v") } else { delete(key, expect) });
    }
    // Only changes of what is there are.
    let lazy = ops.iter().all(|(is_put, key, _)| *is_put && *key >= 4 && model.now.contains_key(KEYS[*key as usize]));
    let before = store.revision();
    let result = store.write(request).await;
    assert_eq!(result.is_ok(), accepted && (lazy || !fail), "{ops:?}: {result:?}");
    let Ok(entries) = result else { return };
    assert!(entries.iter().all(|entry| entry.revision > before && entry.revision == store.revision()));
    for ((is_put, key, _), entry) in ops.iter().zip(entries) {
        let key = KEYS[*key as usize];
        if *is_put {
            model.now.insert(key, (entry.bytes.to_vec(), entry.revision));
        } else {
            model.now.remove(key);
        }
    }
    if !lazy {
        model.durable = model.now.clone();
    }
}

async fn run(steps: Vec<Step>) {
    let mut directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let mut model = Model::default();
    // What a watcher that follows everything believes.
    let mut watcher = store.watch("", store.revision()).unwrap();
    let mut told: BTreeMap<String, (Vec<u8>, u64)> = BTreeMap::new();
    let mut fail = false;
    for step in &steps {
        match step {
            Step::Write(ops) => {
                write(&store, &mut model, ops, fail).await;
                fail = store.handle.shared.fail_next_commit.load(Ordering::SeqCst);
            }
            Step::Fail => {
                fail = true;
                store.handle.shared.fail_next_commit.store(true, Ordering::SeqCst);
            }
            Step::Crash => {
                let issued = store.revision();
                directory = crash(directory.path());
                store = open(directory.path());
                assert!(store.revision() > issued);
                model.now = model.durable.clone();
                fail = false;
            }
            Step::Restart => {
                store.handle.shared.fail_next_commit.store(false, Ordering::SeqCst);
                let issued = store.revision();
                store.close().await;
                store = open(directory.path());
                assert_eq!(store.revision(), issued);
                model.durable = model.now.clone();
                fail = false;
            }
        }
        assert_eq!(contents(&store), named(&model.now));
        if matches!(step, Step::Crash | Step::Restart) {
            watcher = store.watch("", store.revision()).unwrap();
            told = contents(&store);
            continue;
        }
        while watcher.caught_up().is_none() {
            let event = watcher.next().await.unwrap();
            let key = event.entry.key.to_string();
            let prev = event.prev.as_ref().map(|prev| (prev.bytes.to_vec(), prev.revision));
            assert_eq!(prev, told.get(&key).cloned());
            match event.kind {
                EventKind::Put => told.insert(key, (event.entry.bytes.to_vec(), event.entry.revision)),
                EventKind::Delete => told.remove(&key),
            };
        }
        assert_eq!(told, contents(&store));
        watcher = store.watch("", store.revision()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_behaves_like_a_map(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
