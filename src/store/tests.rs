//! The store against its promises: exact watches, failed commits, crashes, a model.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use tempfile::TempDir;

mod model;

/// How often: what the environment says (`make soak`), else a few.
fn times(name: &str, few: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

fn open(directory: &Path) -> Store {
    let config = Config { lazy_prefixes: vec!["/lazy/".to_owned()], ..Config::new(directory.join("state.db")) };
    Store::open(config).unwrap()
}

fn put(key: &str, expect: Expect, value: &str) -> Op {
    let value = value.to_owned();
    Op::Put { key: key.into(), expect, finish: Box::new(move |revision| format!("{value}@{revision}").into()) }
}

fn delete(key: &str, expect: Expect) -> Op {
    Op::Delete { key: key.into(), expect, finish: Box::new(|revision| format!("gone@{revision}").into()) }
}

async fn next_event(watcher: &mut Watcher) -> Arc<Event> {
    watcher.next().await.expect("the watch goes on")
}

/// As a crash leaves it: a copy taken while the store is open.
fn crash(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn expectations_are_checked_against_pending() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let first = store.write(vec![put("/a", Expect::Absent, "1")]).await.unwrap().remove(0);
    assert_eq!(&*first.bytes, format!("1@{}", first.revision).as_bytes());
    assert!(matches!(store.write(vec![put("/a", Expect::Absent, "2")]).await, Err(Error::Exists { .. })));
    let second = store.write(vec![put("/a", Expect::Revision(first.revision), "2")]).await.unwrap().remove(0);
    match store.write(vec![put("/b", Expect::Any, "x"), put("/a", Expect::Revision(first.revision), "3")]).await {
        Err(Error::Changed { current: Some(current), .. }) => assert_eq!(current.revision, second.revision),
        other => panic!("{other:?}"),
    }
    assert!(store.snapshot().get("/b").is_none(), "nothing of a refused transaction is applied");
    assert!(matches!(
        store.write(vec![delete("/none", Expect::Revision(1))]).await,
        Err(Error::Changed { current: None, .. })
    ));
    let gone = store.write(vec![delete("/a", Expect::Any), delete("/none", Expect::Any)]).await.unwrap();
    assert_eq!(&*gone[0].bytes, format!("gone@{}", gone[0].revision).as_bytes());
    assert_eq!(gone[0].revision, gone[1].revision);
}

#[tokio::test]
async fn range_and_count_page_through_a_prefix() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for key in ["/r/a/1", "/r/a/2", "/r/a/3", "/r/b/1", "/r/a"] {
        store.write(vec![put(key, Expect::Any, "")]).await.unwrap();
    }
    let snapshot = store.snapshot();
    let keys = |after| snapshot.range("/r/a/", after).map(|entry| entry.key.to_string()).collect::<Vec<_>>();
    assert_eq!(keys(None), ["/r/a/1", "/r/a/2", "/r/a/3"]);
    assert_eq!(keys(Some("/r/a/1")), ["/r/a/2", "/r/a/3"]);
    assert_eq!(keys(Some("/0")), ["/r/a/1", "/r/a/2", "/r/a/3"]);
    assert_eq!(snapshot.count("/r/a/", Some("/r/a/2")), 1);
}

#[tokio::test]
async fn a_watch_from_the_past_is_exact() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut revisions = vec![store.revision()];
    for n in 0..200 {
        let key = if n % 2 == 0 { "/w/x" } else { "/other" };
        let written = store.write(vec![put(key, Expect::Any, &n.to_string())]).await.unwrap();
        revisions.push(written[0].revision);
    }
    let mut watcher = store.watch("/w/", revisions[100]).unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 200..400 {
                let key = if n % 2 == 0 { "/w/x" } else { "/other" };
                store.write(vec![put(key, Expect::Any, &n.to_string())]).await.unwrap();
            }
        }
    });
    for n in (100..400).step_by(2) {
        let event = next_event(&mut watcher).await;
        assert_eq!(&*event.entry.bytes, format!("{n}@{}", event.entry.revision).as_bytes());
        assert!(event.prev.is_some());
    }
    writer.await.unwrap();
    let newest = store.revision();
    assert_eq!(watcher.caught_up(), Some(newest), "others' writes count too");
    let written = store.write(vec![put("/w/y", Expect::Any, "")]).await.unwrap()[0].revision;
    assert_eq!(watcher.caught_up(), None, "there is an event to hand out");
    assert_eq!(next_event(&mut watcher).await.entry.revision, written);
    let newest = written;
    assert!(matches!(store.watch("/w/", newest + 1), Err(Error::Future { .. })));
    assert!(matches!(store.watch("/w/", 0), Err(Error::Compacted { .. })), "from before this start");
    store.close().await;
    assert!(watcher.next().await.is_none());
    assert!(matches!(store.write(vec![put("/a", Expect::Any, "")]).await, Err(Error::Closed)));
    assert!(matches!(store.watch("/w/", newest), Err(Error::Closed)));
}

#[tokio::test]
async fn past_snapshots_are_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut kept = Vec::new();
    for n in 0..50 {
        let key = format!("/s/{}", n % 7);
        let op = if n % 5 == 4 { delete(&key, Expect::Any) } else { put(&key, Expect::Any, &n.to_string()) };
        store.write(vec![op, put("/s/also", Expect::Any, &n.to_string())]).await.unwrap();
        kept.push(store.snapshot());
    }
    let contents = |snapshot: &Snapshot| {
        snapshot.range("/", None).map(|e| (e.key.to_string(), e.bytes, e.revision)).collect::<Vec<_>>()
    };
    for snapshot in &kept {
        assert_eq!(contents(&store.snapshot_at(snapshot.revision()).unwrap()), contents(snapshot));
    }
}

#[tokio::test]
async fn a_slow_watcher_is_closed_and_a_quiet_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { history_bytes: 100_000, ..Config::new(directory.path().join("state.db")) };
    let store = Store::open(config).unwrap();
    let start = store.revision();
    let mut slow = store.watch("/busy/", start).unwrap();
    let mut quiet = store.watch("/quiet/", start).unwrap();
    for n in 0..100 {
        store.write(vec![put("/busy/x", Expect::Any, &format!("{n}{}", "y".repeat(5_000)))]).await.unwrap();
    }
    assert!(slow.next().await.is_none());
    assert!(matches!(store.watch("/busy/", start), Err(Error::Compacted { .. })));
    assert!(matches!(store.snapshot_at(start), Err(Error::Compacted { .. })));
    store.write(vec![put("/quiet/x", Expect::Any, "psst")]).await.unwrap();
    assert_eq!(&*next_event(&mut quiet).await.entry.key, "/quiet/x");
}

#[tokio::test]
async fn a_failed_commit_rolls_pending_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let kept = store.write(vec![put("/a", Expect::Any, "kept")]).await.unwrap().remove(0);
    let mut watcher = store.watch("/", kept.revision).unwrap();
    store.handle.shared.fail_next_commit.store(true, Ordering::SeqCst);
    assert!(matches!(store.write(vec![put("/a", Expect::Any, "lost")]).await, Err(Error::Database(_))));
    assert_eq!(store.snapshot().get("/a").unwrap().revision, kept.revision);
    let next = store.write(vec![put("/a", Expect::Revision(kept.revision), "next")]).await.unwrap().remove(0);
    assert!(next.revision > kept.revision + 1, "a revision is never issued twice");
    assert_eq!(next_event(&mut watcher).await.entry.revision, next.revision);
    assert_eq!(open(crash(directory.path()).path()).snapshot().get("/a").unwrap().bytes, next.bytes);
}

#[tokio::test]
async fn lazy_writes_are_seen_at_once_and_ride_the_next_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let wal = || std::fs::metadata(directory.path().join("state.db-wal")).unwrap().len();
    let made = store.write(vec![put("/lazy/x", Expect::Absent, "0")]).await.unwrap().remove(0);
    let before = wal();
    let mut watcher = store.watch("/lazy/", store.revision()).unwrap();
    let lazy = store.write(vec![put("/lazy/x", Expect::Any, "1")]).await.unwrap().remove(0);
    assert_eq!(next_event(&mut watcher).await.entry.revision, lazy.revision);
    assert_eq!(store.snapshot().get("/lazy/x").unwrap().bytes, lazy.bytes);
    assert_eq!(wal(), before, "no write of its own");

    let after_crash = open(crash(directory.path()).path());
    assert_eq!(after_crash.snapshot().get("/lazy/x").unwrap().bytes, made.bytes);
    assert!(matches!(after_crash.watch("/lazy/", lazy.revision), Err(Error::Compacted { .. })));
    let reissued = after_crash.write(vec![put("/other", Expect::Any, "")]).await.unwrap().remove(0);
    assert!(reissued.revision > lazy.revision);

    store.write(vec![put("/other", Expect::Any, "")]).await.unwrap();
    assert_eq!(open(crash(directory.path()).path()).snapshot().get("/lazy/x").unwrap().bytes, lazy.bytes);
}

#[tokio::test]
async fn what_is_made_or_deleted_stays_so_though_its_changes_are_lazy() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.write(vec![put("/lazy/x", Expect::Absent, "1")]).await.unwrap();
    assert!(open(crash(directory.path()).path()).snapshot().get("/lazy/x").is_some());
    store.write(vec![put("/lazy/x", Expect::Any, "2")]).await.unwrap();
    store.write(vec![delete("/lazy/x", Expect::Any)]).await.unwrap();
    assert!(open(crash(directory.path()).path()).snapshot().get("/lazy/x").is_none());
}

#[tokio::test]
async fn lazy_revisions_never_outrun_the_reservation() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for n in 0..5000 {
        store.write(vec![put("/lazy/x", Expect::Any, &n.to_string())]).await.unwrap();
    }
    assert!(open(crash(directory.path()).path()).revision() > store.revision());
}

#[tokio::test]
async fn a_clean_close_keeps_everything_and_the_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.write(vec![put("/a", Expect::Any, "1")]).await.unwrap();
    let lazy = store.write(vec![put("/lazy/x", Expect::Any, "1")]).await.unwrap().remove(0);
    store.close().await;
    let again = open(directory.path());
    assert_eq!(again.revision(), lazy.revision);
    assert_eq!(again.snapshot().get("/lazy/x").unwrap().revision, lazy.revision);
    assert!(again.watch("/", lazy.revision).is_ok(), "a watch goes on where it stopped");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(directory.path().join("state.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_opener_is_told_who_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path());
    let error = Store::open(Config::new(directory.path().join("state.db"))).err().unwrap();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn a_damaged_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = open(directory.path());
    for n in 0..500 {
        store.write(vec![put(&format!("/k/{n}"), Expect::Any, &"v".repeat(500))]).await.unwrap();
    }
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    let mut holed = whole.clone();
    holed[8192..60_000].fill(0x5a);
    for damaged in [&b""[..], b"hello, this is no database at all", &whole[..20_000], &holed] {
        std::fs::write(&path, damaged).unwrap();
        let error = Store::open(Config::new(&path)).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("mini reset"), "{error}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(open(directory.path()).snapshot().count("/k/", None), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_lose_and_reorder_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut watcher = store.watch("/n/", store.revision()).unwrap();
    let started = std::time::Instant::now();
    let (writers, each) = (64, 100);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    store.write(vec![put(&format!("/n/{writer}/{n}"), Expect::Absent, "value")]).await.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut last) = (BTreeSet::new(), 0);
    while seen.len() < writers * each {
        let event = next_event(&mut watcher).await;
        assert!(event.entry.revision > last);
        last = event.entry.revision;
        assert!(seen.insert(event.entry.key.to_string()));
    }
    for task in tasks {
        task.await.unwrap();
    }
    println!("{:.0} durable writes/s", (writers * each) as f64 / started.elapsed().as_secs_f64());
    assert_eq!(open(crash(directory.path()).path()).snapshot().count("/n/", None), writers * each);
}

/// Counters under contention: every increment that was answered is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn optimistic_increments_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut done: BTreeMap<usize, u32> = BTreeMap::new();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut current = store.snapshot().get("/counter");
                let mut count = 0;
                while count < 50 {
                    let expect = current.as_ref().map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
                    let value = current.as_ref().map_or(0, |entry| {
                        let text = std::str::from_utf8(&entry.bytes).unwrap();
                        text.split('@').next().unwrap().parse::<u32>().unwrap()
                    });
                    match store.write(vec![put("/counter", expect, &(value + 1).to_string())]).await {
                        Ok(written) => {
                            count += 1;
                            current = written.into_iter().next();
                        }
                        Err(Error::Changed { current: now, .. }) => current = now,
                        Err(Error::Exists { .. }) => current = store.snapshot().get("/counter"),
                        Err(other) => panic!("{other}"),
                    }
                }
                count
            })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        done.insert(n, task.await.unwrap());
    }
    let last = store.snapshot().get("/counter").unwrap();
    assert!(last.bytes.starts_with(format!("{}@", done.values().sum::<u32>()).as_bytes()));
}
