//! The file: lines from a bounded queue, written and turned over by a thread of its own.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Room for lines that wait for the disk, in KiB. Who finds none waits: no event is dropped but by the end of the process.
const ROOM: u32 = 32 * 1024;
/// The time in a backup's name, in UTC.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";

/// Where the log is and when it is turned over.
#[derive(Clone, Debug)]
pub struct LogFile {
    pub path: PathBuf,
    /// A file grows to at most this.
    pub max_bytes: u64,
    /// Backups older than this go; zero: they stay.
    pub max_age: Duration,
    /// So many backups stay; zero: all.
    pub max_backups: usize,
}

enum Message {
    Line(Vec<u8>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<()>),
}

/// The way to the thread.
pub(super) struct Sink {
    queue: UnboundedSender<Message>,
    room: Arc<Semaphore>,
    pub(super) lost: Arc<AtomicU64>,
}

impl Sink {
    /// Opens the file and starts the thread; it ends with the sink.
    pub(super) fn open(config: LogFile) -> std::io::Result<Self> {
        let (queue, messages) = unbounded_channel();
        let lost = Arc::<AtomicU64>::default();
        let mut writer = Writer {
            config,
            file: None,
            size: 0,
            turned: jiff::Timestamp::UNIX_EPOCH,
            lost: lost.clone(),
            ailing: false,
        };
        writer.reopen()?;
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || run(writer, messages))?;
        Ok(Self { queue, room: Arc::new(Semaphore::new(ROOM as usize)), lost })
    }

    /// Waits for room.
    pub(super) async fn send(&self, line: Vec<u8>) {
        if let Ok(room) = self.room.clone().acquire_many_owned(size(&line)).await {
            let _ = self.queue.send(Message::Line(line, room));
        }
    }

    /// For those who cannot wait: a line that finds no room is lost, and counted.
    pub(super) fn try_send(&self, line: Vec<u8>) {
        match self.room.clone().try_acquire_many_owned(size(&line)) {
            Ok(room) => drop(self.queue.send(Message::Line(line, room))),
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns once everything sent before is in the file.
    pub(super) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

fn size(line: &[u8]) -> u32 {
    u32::try_from(line.len() / 1024 + 1).unwrap_or(ROOM).min(ROOM)
}

fn run(mut writer: Writer, mut messages: UnboundedReceiver<Message>) {
    while let Some(first) = messages.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line, _room) => writer.write(&line),
                Message::Flush(done) => {
                    writer.flush();
                    let _ = done.send(());
                }
            }
            next = messages.try_recv().ok();
        }
        writer.flush();
    }
}

struct Writer {
    config: LogFile,
    file: Option<BufWriter<File>>,
    size: u64,
    /// When it was last turned over.
    turned: jiff::Timestamp,
    lost: Arc<AtomicU64>,
    /// The last write failed: said once.
    ailing: bool,
}

impl Writer {
    fn write(&mut self, line: &[u8]) {
        let result = self.append(line);
        self.note(result, 1);
    }

    fn flush(&mut self) {
        let result = self.file.as_mut().map_or(Ok(()), Write::flush);
        self.note(result, 0);
    }

    fn note(&mut self, result: std::io::Result<()>, lines: u64) {
        match result {
            Ok(()) => self.ailing = self.ailing && lines == 0,
            Err(error) => {
                self.lost.fetch_add(lines.max(1), Ordering::Relaxed);
                // What is buffered would fail again and again.
                self.file = None;
                if !self.ailing {
                    tracing::error!(path = %self.config.path.display(), %error, "the audit log cannot be written");
                }
                self.ailing = true;
            }
        }
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let length = line.len() as u64;
        if self.size > 0 && self.size + length > self.config.max_bytes {
            self.turn_over()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
        }
        self.size += length;
        Ok(())
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        if let Some(parent) = self.config.path.parent().filter(|parent| !parent.exists()) {
            std::fs::create_dir_all(parent)?;
            std::fs::set_permissions(parent, Permissions::from_mode(0o700))?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.config.path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        self.size = file.metadata()?.len();
        self.file = Some(BufWriter::with_capacity(64 * 1024, file));
        Ok(())
    }

    /// The file becomes a backup, and what is too old or too much goes.
    fn turn_over(&mut self) -> std::io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        let (stem, extension) = name_parts(&self.config.path);
        // Later than any before it, also within a millisecond and when the clock was put back.
        self.turned = jiff::Timestamp::now().max(self.turned + Duration::from_millis(1));
        let mut backup = self.config.path.with_file_name(format!("{stem}-{}{extension}", self.turned.strftime(STAMP)));
        while backup.exists() {
            self.turned += Duration::from_millis(1);
            backup = self.config.path.with_file_name(format!("{stem}-{}{extension}", self.turned.strftime(STAMP)));
        }
        std::fs::rename(&self.config.path, backup)?;
        self.reopen()?;
        self.prune();
        Ok(())
    }

    fn prune(&self) {
        let now = SystemTime::now();
        for (age, path) in backups(&self.config.path).into_iter().rev().enumerate() {
            let too_many = self.config.max_backups > 0 && age >= self.config.max_backups;
            let modified = path.metadata().and_then(|metadata| metadata.modified());
            let old = modified.ok().and_then(|modified| now.duration_since(modified).ok());
            let too_old = !self.config.max_age.is_zero() && old.is_some_and(|old| old > self.config.max_age);
            if (too_many || too_old)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "an old audit log cannot be removed");
            }
        }
    }
}

/// The name without its extension, and that with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}")).unwrap_or_default();
    (text(path.file_stem()).unwrap_or_default(), extension)
}

/// The backups of a log, oldest first.
fn backups(path: &Path) -> Vec<PathBuf> {
    let (stem, extension) = name_parts(path);
    let stamp = |name: &str| {
        let stamp = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
        jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", stamp).ok()
    };
    let entries = path.parent().and_then(|parent| std::fs::read_dir(parent).ok()).into_iter().flatten().flatten();
    let mut found: Vec<_> =
        entries.filter_map(|entry| Some((stamp(entry.file_name().to_str()?)?, entry.path()))).collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_file_is_turned_over_and_few_backups_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/audit.log");
        let config = LogFile { path: path.clone(), max_bytes: 100, max_age: Duration::ZERO, max_backups: 2 };
        let sink = Sink::open(config).unwrap();
        std::fs::write(dir.path().join("log/audit-else.log"), "").unwrap();
        for n in 0..10 {
            sink.send(format!("{n:039}\n").into_bytes()).await;
        }
        sink.flush().await;
        let kept = backups(&path);
        assert_eq!(kept.len(), 2);
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        let all: Vec<String> = kept.iter().chain([&path]).map(|path| text(path)).collect();
        let numbers: Vec<u32> = all.iter().flat_map(|t| t.lines()).map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, [4, 5, 6, 7, 8, 9]);
        assert!(dir.path().join("log/audit-else.log").exists(), "what is no backup stays");
        for path in kept.iter().chain([&path]) {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn old_backups_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let old = dir.path().join("audit-2020-01-02T03-04-05.678.log");
        std::fs::write(&old, "").unwrap();
        File::options().write(true).open(&old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(86400);
        let sink = Sink::open(LogFile { path: path.clone(), max_bytes: 1, max_age: day, max_backups: 0 }).unwrap();
        for _ in 0..3 {
            sink.send(b"line\n".to_vec()).await;
        }
        sink.flush().await;
        assert!(!old.exists());
        assert_eq!(backups(&path).len(), 2);
    }
}
