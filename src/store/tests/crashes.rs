//! A process that writes is killed, over and over, and what it leaves is damaged as a power cut would: what was
//! acknowledged is there, nothing is there in part, numbering goes on, and watches from before are too old.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use mini_store::{Config, Entry, Error, Expect, Op, Store};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const WRITERS: usize = 8;
const DIRECTORY: &str = "STORE_CRASH_DIRECTORY";
/// How the WAL file begins, and how each of its frames does: SQLite's format.
const WAL_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;

fn open(directory: &Path) -> Store {
    let config = Config { lazy_prefixes: vec!["/lazy/".to_owned()], ..Config::new(directory.join("state.db")) };
    Store::open(config).unwrap()
}

fn put(key: &str, value: &str) -> Op {
    let value = value.to_owned();
    Op::Put { key: key.into(), expect: Expect::Any, finish: Box::new(move |_| value.into()) }
}

/// As a crash leaves it.
fn copy_of(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// What the environment says (`make soak`), else a few.
fn setting(name: &str, few: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}

/// The process that is killed: each writer counts in two keys of its own at once, and says so when it is acknowledged.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&directory));
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write_on(store.clone(), writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write_on(store: Store, writer: usize) {
    let (left, right, lazy) = (format!("/left/{writer}"), format!("/right/{writer}"), format!("/lazy/{writer}"));
    let mut count = store.snapshot().get(&left).map_or(0, |entry| number(&entry));
    loop {
        count += 1;
        // Some values take several pages.
        let value = format!("{count:08}{}", "x".repeat(if count.is_multiple_of(16) { 9000 } else { writer * 20 }));
        let mut ops = vec![put(&left, &value), put(&right, &value)];
        if count.is_multiple_of(5) {
            let key = format!("/passing/{writer}").into();
            ops.push(Op::Delete { key, expect: Expect::Any, finish: Box::new(|_| "gone".into()) });
        } else {
            ops.push(put(&format!("/passing/{writer}"), &value));
        }
        let written = store.write(ops).await.unwrap();
        store.write(vec![put(&lazy, &value)]).await.unwrap();
        let line = format!("ack {writer} {count} {}\n", written[0].revision);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.bytes[..8]).unwrap().parse().unwrap()
}

fn start(directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, directory).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// What each writer was told last: its count, and the revision.
type Acknowledged = [(u64, u64); WRITERS];

/// Lets the process write `many` times, kills it, and notes what it was told until then.
fn write_and_kill(directory: &Path, many: usize, acknowledged: &mut Acknowledged) {
    let mut child = start(directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut note = |line: String| {
        // The harness begins its line, and the first acknowledgement ends it.
        let Some((_, ack)) = line.split_once("ack ") else { return false };
        let mut words = ack.split(' ').map(|word| word.parse::<u64>().unwrap());
        let (writer, count, revision) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let known = &mut acknowledged[usize::try_from(writer).unwrap()];
        assert!(known.0 < count && known.1 < revision, "{known:?}, then {count} at {revision}");
        *known = (count, revision);
        true
    };
    let mut seen = 0;
    while seen < many {
        seen += usize::from(note(lines.next().expect("the process writes until it is killed")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was in the pipe was acknowledged too.
    for line in lines {
        note(line);
    }
}

/// The frames of the WAL that belong to it: where each ends, and whether it ends a transaction.
fn frames(wal: &[u8]) -> Vec<(usize, bool)> {
    let word = |at: usize| wal.get(at..at + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    let (Some(page), Some(salt)) = (word(8), wal.get(16..24)) else { return Vec::new() };
    let size = FRAME_HEAD + page as usize;
    let mut frames = Vec::new();
    while let Some(frame) = wal.get(WAL_HEAD + frames.len() * size..WAL_HEAD + (frames.len() + 1) * size) {
        if frame[8..16] != *salt {
            break;
        }
        frames.push((WAL_HEAD + (frames.len() + 1) * size, frame[4..8] != [0; 4]));
    }
    frames
}

/// The end of the log as a power cut may leave it; true if the last transaction that is in it may be lost by that.
fn tear(directory: &Path, kind: u64, at: u64) -> bool {
    let path = directory.join("state.db-wal");
    let Ok(mut wal) = std::fs::read(&path) else { return false };
    let frames = frames(&wal);
    let commits: Vec<usize> = frames.iter().filter(|frame| frame.1).map(|frame| frame.0).collect();
    let Some(end) = commits.last().copied() else { return false };
    let before = commits.iter().rev().nth(1).copied().unwrap_or(WAL_HEAD);
    let inside = before + usize::try_from(at).unwrap() % (end - before);
    // What is in the database file too was synced before: no power cut takes it from the log.
    let database = std::fs::read(directory.join("state.db")).unwrap();
    let size = frames[0].0 - WAL_HEAD;
    let moved = (before..end).step_by(size).any(|frame| {
        let number = u32::from_be_bytes(wal[frame..frame + 4].try_into().unwrap()) as usize;
        let page = (number - 1) * (size - FRAME_HEAD);
        database.get(page..page + size - FRAME_HEAD) == wal.get(frame + FRAME_HEAD..frame + size)
    });
    if moved {
        return false;
    }
    match kind % 5 {
        // Nothing was under way.
        0 => return false,
        // A frame that was begun, of zeros or of what was there before.
        1 => drop(wal.splice(end.., vec![0; 1000])),
        2 => drop(wal.splice(end.., wal[end - 3000..end].to_vec())),
        // The last transaction was not wholly written: cut off, or with a hole.
        3 => wal.truncate(inside),
        _ => wal[inside..end].fill(0),
    }
    std::fs::write(&path, wal).unwrap();
    kind % 5 >= 3
}

/// Looks at a store that is open again. `torn`: the last batch may be missing, though it was acknowledged.
fn check(store: &Store, acknowledged: &Acknowledged, torn: bool) {
    let snapshot = store.snapshot();
    let newest = snapshot.range("", None).map(|entry| entry.revision).max().unwrap();
    assert!(newest < store.revision(), "after an unclean stop numbering begins anew, higher up");
    for (writer, (count, revision)) in acknowledged.iter().copied().enumerate() {
        let entry = |kind: &str| snapshot.get(&format!("/{kind}/{writer}"));
        let Some(left) = entry("left") else {
            assert!(count == 0 || torn, "writer {writer} is gone");
            continue;
        };
        let right = entry("right").expect("both halves");
        let found = number(&left);
        assert_eq!((found, left.revision), (number(&right), right.revision), "all of a transaction or nothing");
        let passing = entry("passing").map(|entry| (number(&entry), entry.revision));
        assert_eq!(
            passing,
            (!found.is_multiple_of(5)).then_some((found, left.revision)),
            "all of a transaction or nothing"
        );
        if revision <= newest && !torn {
            assert!(found >= count, "writer {writer}: {count} was acknowledged, {found} is there");
        }
        // What is there is a beginning of the sequence: nothing is missing below the newest that is there.
        assert!(
            found >= count || revision > newest,
            "writer {writer}: {count} at {revision} is missing, {newest} is there"
        );
        assert!(found <= count + 1, "writer {writer}: {found} is there, {count} was the last it was told");
        if count > 1 {
            assert!(entry("lazy").is_some() || torn, "what was made stays, though its changes are lazy");
        }
    }
    for old in acknowledged.iter().map(|ack| ack.1).chain([1, newest]) {
        assert!(
            matches!(store.watch("/", old), Err(Error::Compacted { .. })),
            "a watch from before the crash has gaps"
        );
    }
    let next = store.revision();
    assert!(matches!(store.snapshot_at(next + 1), Err(Error::Future { .. })));
}

#[tokio::test]
async fn a_killed_process_leaves_what_it_acknowledged() {
    let seed = u64::from(setting("STORE_CRASH_SEED", 7));
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random >> 33
    };
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: Acknowledged = Default::default();
    let mut highest = 0;
    for round in 0..setting("STORE_CRASHES", 5) {
        write_and_kill(directory.path(), 1 + usize::try_from(next() % 300).unwrap(), &mut acknowledged);
        // Each way a copy may be torn, and then the one that goes on.
        for kind in 0..5 {
            let copy = copy_of(directory.path());
            let torn = tear(copy.path(), kind, next());
            println!("seed {seed}, round {round}, tear {kind}, {torn}");
            let store = open(copy.path());
            check(&store, &acknowledged, torn);
            // A second crash, right after the start.
            let again = open(copy_of(copy.path()).path());
            assert!(again.revision() > store.revision());
            check(&again, &acknowledged, torn);
            if kind == 0 {
                assert!(store.revision() > highest && acknowledged.iter().all(|ack| ack.1 < store.revision()));
                highest = store.revision();
                for (writer, known) in acknowledged.iter_mut().enumerate() {
                    if let Some(entry) = store.snapshot().get(&format!("/left/{writer}")) {
                        // One more may be there than it was told of.
                        *known = (number(&entry), entry.revision);
                    }
                }
            }
        }
        if next() % 2 == 0 {
            // Else the next process finds it as it was left.
            let store = open(directory.path());
            check(&store, &acknowledged, false);
            store.close().await;
        }
    }
}
