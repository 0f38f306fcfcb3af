//! The durable log: current values in SQLite, WAL with `synchronous=FULL`, one connection, one process.
//!
//! Only what recovery needs is on disk: the current values, and a reservation of revisions. Every revision given out is
//! at or below the reservation before anyone sees it, so after an unclean stop numbering goes on above it, and no revision
//! is issued twice, though lazy writes above the last durable one may be lost.

use crate::pending::{Change, State};
use crate::{Entry, Error};
use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// "mini", so that no other program's database is taken for ours.
const APPLICATION_ID: i32 = 0x6d69_6e69;
const SCHEMA_VERSION: i32 = 1;

/// Revisions reserved in one go. Idle node leases use one in ten seconds.
const RESERVE: u64 = 4096;

const SCHEMA: &str = "
    CREATE TABLE objects (id INTEGER PRIMARY KEY, key TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('reserved', 0), ('closed_at', 1);
";

pub(crate) struct Log {
    connection: Connection,
    /// Where each key's row is: saves an index, in memory and on disk.
    rows: HashMap<Arc<str>, i64>,
    next_row: i64,
    reserved: u64,
    /// Lazy writes that are published and ride the next commit; `None` deletes.
    deferred: HashMap<Arc<str>, Option<Entry>>,
    /// Held as long as the database is open.
    _lock: File,
}

/// What an opened database holds.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) revision: u64,
}

impl Log {
    pub(crate) fn open(path: &Path) -> Result<(Self, Recovered), Error> {
        let lock = lock(path)?;
        Self::load(path, lock).map_err(|error| match error {
            Open::Sqlite(error) => named(path, &error),
            Open::File(error) => Error::Database(format!("{}: {error}", path.display())),
            Open::Damaged(cause) => Error::Damaged { path: path.to_owned(), cause },
            Open::Newer(version) => Error::Database(format!(
                "{} was written by a newer mini (format {version}, this one knows {SCHEMA_VERSION}); use that one",
                path.display()
            )),
        })
    }

    fn load(path: &Path, lock: File) -> Result<(Self, Recovered), Open> {
        if !path.try_exists()? {
            create(path)?;
        }
        let connection = Connection::open(path)?;
        // Exclusive locking before WAL: the WAL index lives in memory and no shared-memory file is needed.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(Open::Damaged(format!("its journal mode is {mode}")));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // The current state is in memory already; 512 KiB of pages are for interior nodes and the transaction at hand.
        connection.pragma_update(None, "cache_size", -512)?;
        connection.pragma_update(None, "journal_size_limit", 4 << 20)?;
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        if pragma("application_id")? != APPLICATION_ID {
            return Err(Open::Damaged("it is empty or not a mini database".to_owned()));
        }
        match pragma("user_version")? {
            SCHEMA_VERSION => {}
            newer if newer > SCHEMA_VERSION => return Err(Open::Newer(newer)),
            other => return Err(Open::Damaged(format!("its format {other} is unknown"))),
        }

        let (state, rows, last_row, durable) = read_objects(&connection)?;
        let reserved = meta(&connection, "reserved")?;
        let closed_at = meta(&connection, "closed_at")?;
        if durable > reserved.max(closed_at) {
            return Err(Open::Damaged(format!("revision {durable} was never reserved")));
        }
        // After an unclean stop one more than the reservation is skipped: nobody can have seen that one, so every watch
        // and every continue token from before is recognised as too old.
        let revision = if closed_at > 0 { closed_at } else { reserved + 1 };
        let mut log =
            Self { connection, rows, next_row: last_row + 1, reserved, deferred: HashMap::new(), _lock: lock };
        log.reserve_first(revision)?;
        Ok((log, Recovered { state, revision }))
    }

    /// From here on the stop is unclean until `close` says otherwise.
    fn reserve_first(&mut self, revision: u64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        set_meta(&transaction, "reserved", revision + RESERVE)?;
        set_meta(&transaction, "closed_at", 0)?;
        transaction.commit()?;
        self.reserved = revision + RESERVE;
        Ok(())
    }

    /// May `revision` be shown without a commit?
    pub(crate) fn reserved(&self, revision: u64) -> bool {
        revision <= self.reserved
    }

    /// Keeps lazy changes for the next commit.
    pub(crate) fn defer<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        for change in changes {
            let value = change.kind.is_put().then(|| change.entry.clone());
            self.deferred.insert(Arc::clone(&change.entry.key), value);
        }
    }

    /// Makes `changes` and everything deferred durable, up to and including `revision`. All or nothing.
    pub(crate) fn commit<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a Change>,
        revision: u64,
    ) -> rusqlite::Result<()> {
        let reserved = if self.reserved(revision) { self.reserved } else { revision + RESERVE };
        let mut undo = Vec::new();
        let next_row = self.next_row;
        let result = self.write(changes, reserved, &mut undo);
        match result {
            Ok(()) => {
                self.deferred.clear();
                self.reserved = reserved;
            }
            Err(_) => {
                for (key, row) in undo.into_iter().rev() {
                    match row {
                        Some(row) => self.rows.insert(key, row),
                        None => self.rows.remove(&key),
                    };
                }
                self.next_row = next_row;
            }
        }
        result
    }

    fn write<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a Change>,
        reserved: u64,
        undo: &mut Vec<(Arc<str>, Option<i64>)>,
    ) -> rusqlite::Result<()> {
        // Rolls back when dropped before the commit.
        let transaction = self.connection.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("INSERT INTO objects (id, key, revision, value) VALUES (?, ?, ?, ?)")?;
            let mut update = transaction.prepare_cached("UPDATE objects SET revision = ?, value = ? WHERE id = ?")?;
            let mut delete = transaction.prepare_cached("DELETE FROM objects WHERE id = ?")?;
            let deferred = self.deferred.iter().map(|(key, entry)| (key, entry.as_ref()));
            let changes = changes.map(|change| (&change.entry.key, change.kind.is_put().then_some(&change.entry)));
            for (key, entry) in deferred.chain(changes) {
                match (entry, self.rows.get(key).copied()) {
                    (Some(entry), Some(row)) => {
                        update.execute(params![signed(entry.revision), &*entry.bytes, row])?;
                    }
                    (Some(entry), None) => {
                        let row = self.next_row;
                        self.next_row += 1;
                        insert.execute(params![row, &**key, signed(entry.revision), &*entry.bytes])?;
                        undo.push((Arc::clone(key), None));
                        self.rows.insert(Arc::clone(key), row);
                    }
                    (None, Some(row)) => {
                        delete.execute(params![row])?;
                        undo.push((Arc::clone(key), Some(row)));
                        self.rows.remove(key);
                    }
                    (None, None) => {}
                }
            }
        }
        if reserved != self.reserved {
            set_meta(&transaction, "reserved", reserved)?;
        }
        transaction.commit()
    }

    /// Writes what was deferred, notes `revision` as the last one given out, and folds the WAL into the file.
    pub(crate) fn close(mut self, revision: u64) -> rusqlite::Result<()> {
        self.commit(std::iter::empty(), revision)?;
        set_meta(&self.connection, "closed_at", revision)?;
        let free: i64 = self.connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        let pages: i64 = self.connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        if free > 256 && free > pages / 4 {
            self.connection.execute_batch("PRAGMA incremental_vacuum")?;
        }
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// Why a database could not be opened.
enum Open {
    Sqlite(rusqlite::Error),
    File(std::io::Error),
    Damaged(String),
    Newer(i32),
}

impl From<rusqlite::Error> for Open {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<std::io::Error> for Open {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

fn named(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Error::Damaged { path: path.to_owned(), cause: error.to_string() }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::InUse { path: path.to_owned(), pid: "unknown".to_owned() }
        }
        _ => Error::Database(format!("{}: {error}", path.display())),
    }
}

type Objects = (State, HashMap<Arc<str>, i64>, i64, u64);

fn read_objects(connection: &Connection) -> Result<Objects, Open> {
    let mut state = State::new();
    let mut rows = HashMap::new();
    let (mut last_row, mut newest) = (0, 0);
    let mut statement = connection.prepare("SELECT id, key, revision, value FROM objects")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let id: i64 = row.get(0)?;
        let key: Arc<str> = Arc::from(row.get_ref(1)?.as_str().map_err(|_| not_text(id))?);
        let revision = u64::try_from(row.get::<_, i64>(2)?).map_err(|_| not_text(id))?;
        let bytes = Bytes::copy_from_slice(row.get_ref(3)?.as_blob().map_err(|_| not_text(id))?);
        last_row = last_row.max(id);
        newest = newest.max(revision);
        if rows.insert(Arc::clone(&key), id).is_some() {
            return Err(Open::Damaged(format!("key {key} is there twice")));
        }
        state.insert(Arc::clone(&key), Entry { key, bytes, revision });
    }
    Ok((state, rows, last_row, newest))
}

fn not_text(row: i64) -> Open {
    Open::Damaged(format!("row {row} is not an object"))
}

fn meta(connection: &Connection, name: &str) -> Result<u64, Open> {
    let value: Option<i64> =
        connection.query_row("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0)).optional()?;
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| Open::Damaged(format!("its {name} is missing")))
}

fn set_meta(connection: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET value = ? WHERE name = ?", params![signed(value), name]).map(|_| ())
}

/// SQLite knows signed numbers only; revisions never come near the difference.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Makes the database, readable by its owner alone, under another name and moves it into place whole: a database that
/// is there but empty is always a damaged one, never one whose making was cut short.
fn create(path: &Path) -> Result<(), Open> {
    let draft = side_file(path, ".new");
    // The WAL of a database that was taken away must not be played into the new one.
    for stale in [draft.clone(), side_file(&draft, "-journal"), side_file(path, "-wal")] {
        match std::fs::remove_file(stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let connection = Connection::open(&draft)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    ))?;
    connection.close().map_err(|(_, error)| error)?;
    std::fs::rename(&draft, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

/// One process at a time: a lock file, because it can name the holder and no copy of the database releases it.
fn lock(path: &Path) -> Result<File, Error> {
    let lock_path = side_file(path, ".lock");
    let failed = |error: std::io::Error| Error::Database(format!("{}: {error}", lock_path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            Err(Error::InUse { path: path.to_owned(), pid: pid.trim().to_owned() })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
