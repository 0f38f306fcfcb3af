//! Random operations, crashes and clean restarts against a plain map, and reads and watches of the past against what it was.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(bool, u8, Wanted)>),
    Crash,
    Restart,
    Fail,
    /// A list at a revision of so many writes ago, in pages of so many.
    List(usize, usize),
    /// A watch of a prefix from a revision of so many writes ago.
    Follow(usize, &'static str),
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
    let prefix = prop::sample::select(vec!["", "/b/", "/b/2", "/lazy/", "/none"]);
    let step = prop_oneof![
        20 => ops,
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
        1 => Just(Step::Fail),
        3 => (0..24_usize, 1..5_usize).prop_map(|(ago, page)| Step::List(ago, page)),
        3 => (0..24_usize, prefix).prop_map(|(ago, prefix)| Step::Follow(ago, prefix)),
    ];
    proptest::collection::vec(step, 1..60)
}

type Values = BTreeMap<&'static str, (Vec<u8>, u64)>;

#[derive(Default)]
struct Model {
    now: Values,
    /// What a crash leaves.
    durable: Values,
    /// What was, since the store was opened.
    past: BTreeMap<u64, Values>,
    /// The newest revision that was refused as compacted: no older one comes back.
    compacted: u64,
}

impl Model {
    fn opened(&mut self, store: &Store) {
        self.past = BTreeMap::from([(store.revision(), self.now.clone())]);
        self.compacted = 0;
    }

    fn ago(&self, writes: usize) -> (u64, &Values) {
        let (revision, values) = self.past.iter().rev().nth(writes).or(self.past.iter().next()).unwrap();
        (*revision, values)
    }

    /// Whether `answer` is of a revision that is still kept. The newest always is.
    fn kept<T>(&mut self, revision: u64, newest: u64, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                assert!(revision > self.compacted, "{revision} came back, {} was gone", self.compacted);
                Some(answer)
            }
            Err(Error::Compacted { requested, oldest }) => {
                assert!(requested == revision && oldest > revision && oldest <= newest, "{revision} {oldest} {newest}");
                self.compacted = self.compacted.max(revision);
                None
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn list(store: &Store, model: &mut Model, ago: usize, page: usize) {
    let (revision, values) = model.ago(ago);
    let values = values.clone();
    let Some(snapshot) = model.kept(revision, store.revision(), store.snapshot_at(revision)) else { return };
    assert_eq!(snapshot.revision(), revision);
    let mut seen: Vec<(String, u64)> = Vec::new();
    loop {
        let after = seen.last().map(|(key, _)| key.clone());
        let found: Vec<_> =
            snapshot.range("", after.as_deref()).take(page).map(|e| (e.key.to_string(), e.revision)).collect();
        if found.is_empty() {
            break;
        }
        seen.extend(found);
    }
    let wanted: Vec<_> = values.iter().map(|(key, (_, revision))| ((*key).to_owned(), *revision)).collect();
    assert_eq!(seen, wanted, "at {revision}");
}

async fn follow(store: &Store, model: &mut Model, ago: usize, prefix: &'static str) {
    let (revision, values) = model.ago(ago);
    let below = |values: &Values| -> BTreeMap<String, u64> {
        values
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, (_, at))| ((*key).to_owned(), *at))
            .collect()
    };
    let mut told = below(values);
    let Some(mut watcher) = model.kept(revision, store.revision(), store.watch(prefix, revision)) else { return };
    let mut last = revision;
    let reached = loop {
        if let Some(reached) = watcher.caught_up() {
            break reached;
        }
        let event = watcher.next().await.unwrap();
        let (key, at) = (event.entry.key.to_string(), event.entry.revision);
        assert!(key.starts_with(prefix) && at >= last, "{key} {at} after {last}");
        last = at;
        assert_eq!(event.prev.as_ref().map(|prev| prev.revision), told.get(&key).copied(), "{key}");
        match event.kind {
            EventKind::Put => told.insert(key, at),
            EventKind::Delete => told.remove(&key),
        };
    };
    assert!(reached >= last && reached == store.revision());
    assert_eq!(told, below(&model.now), "{prefix} from {revision}");
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
    model.past.insert(store.revision(), model.now.clone());
}

/// With a history of a dozen writes or two.
fn open(directory: &Path) -> Store {
    let lazy_prefixes = vec!["/lazy/".to_owned()];
    let config = Config { lazy_prefixes, history_bytes: 6_000, ..Config::new(directory.join("state.db")) };
    Store::open(config).unwrap()
}

async fn run(steps: Vec<Step>) {
    let mut directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let mut model = Model::default();
    model.opened(&store);
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
                model.opened(&store);
                fail = false;
            }
            Step::Restart => {
                store.handle.shared.fail_next_commit.store(false, Ordering::SeqCst);
                let issued = store.revision();
                store.close().await;
                store = open(directory.path());
                assert_eq!(store.revision(), issued);
                model.durable = model.now.clone();
                model.opened(&store);
                fail = false;
            }
            Step::List(ago, page) => list(&store, &mut model, *ago, *page),
            Step::Follow(ago, prefix) => follow(&store, &mut model, *ago, prefix).await,
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
    #![proptest_config(ProptestConfig { cases: super::times("STORE_MODEL_CASES", 64), ..ProptestConfig::default() })]
    #[test]
    fn the_store_behaves_like_a_map(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
