//! Tells when files change, by inotify: nothing runs in between.
//!
//! Invariant: whoever reads a file after [`Changes::of`] or [`Changes::next`] has returned is told of every later change,
//! also when the file is replaced by a new one, comes into being, or is behind links that are set anew.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Who writes a file does so in several steps: they are waited for.
const SETTLE: Duration = Duration::from_millis(50);
/// More links than these are not followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// A file's name in its folder comes, goes or is written.
const FOLDER: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Changes of some files.
#[derive(Debug)]
pub struct Changes {
    inotify: AsyncFd<OwnedFd>,
    paths: Vec<PathBuf>,
    /// The names that count in each watched folder; none for a watched file.
    names: HashMap<i32, HashSet<OsString>>,
}

impl Changes {
    /// Watches these absolute paths from now on, whether there is anything or not.
    ///
    /// # Errors
    /// The kernel gives no more watches.
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Its replacement is unsafe for types that are not as faithful to their descriptor as this one.
        #[allow(deprecated)]
        let inotify = AsyncFd::new(inotify)?;
        let mut changes = Self { inotify, paths: paths.into_iter().collect(), names: HashMap::new() };
        changes.arm()?;
        Ok(changes)
    }

    /// Resolves when at least one of the files may have changed; changes in a row are one.
    ///
    /// # Errors
    /// The kernel tells no more.
    pub async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let counts = self.read()?;
            ready.clear_ready();
            if counts {
                break;
            }
        }
        tokio::time::sleep(SETTLE).await;
        self.arm()?;
        // What came meanwhile is told together with the first; a folder that came is watched, too.
        while self.read()? {
            self.arm()?;
        }
        Ok(())
    }

    /// Takes the events that there are; whether one of them counts.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        let mut counts = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()));
                    let known = self.names.get(&event.wd());
                    // Without a name it is about what is watched itself.
                    counts |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                        || known.is_some_and(|names| name.is_none_or(|name| names.contains(name)));
                }
                Err(Errno::WOULDBLOCK) => return Ok(counts),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Watches what the paths lead to now.
    fn arm(&mut self) -> io::Result<()> {
        let mut names: HashMap<i32, HashSet<OsString>> = HashMap::new();
        for path in &self.paths {
            let mut at = path.clone();
            for _ in 0..LINKS_MAX {
                if let Some((wd, name)) = self.watch_folder(&at)? {
                    names.entry(wd).or_default().insert(name);
                }
                let (Ok(target), Some(folder)) = (std::fs::read_link(&at), at.parent()) else { break };
                at = folder.join(target);
            }
            // The file itself: another mount of it may be the one that is written.
            match inotify::add_watch(self.inotify.get_ref(), path, WatchFlags::CLOSE_WRITE) {
                Ok(wd) => _ = names.entry(wd).or_default(),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for wd in self.names.keys().filter(|wd| !names.contains_key(*wd)) {
            // It may have ended by itself.
            let _ = inotify::remove_watch(self.inotify.get_ref(), *wd);
        }
        self.names = names;
        Ok(())
    }

    /// Watches the nearest folder above the path that exists; it, and the name in it that leads to the path.
    fn watch_folder(&self, path: &Path) -> io::Result<Option<(i32, OsString)>> {
        let mut at = path;
        while let (Some(folder), Some(name)) = (at.parent(), at.file_name()) {
            match inotify::add_watch(self.inotify.get_ref(), folder, FOLDER) {
                Ok(wd) => return Ok(Some((wd, name.to_owned()))),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => at = folder,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::time::timeout;

    async fn is_told(changes: &mut Changes) -> bool {
        timeout(Duration::from_millis(500), changes.next()).await.is_ok_and(|told| told.is_ok())
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // A link, as /etc/resolv.conf is one, to a file whose folder is not there yet.
        std::os::unix::fs::symlink("run/resolve/file", at("link")).unwrap();
        fs::create_dir(at("run")).unwrap();
        let mut changes = Changes::of([at("link"), at("other")]).unwrap();
        fs::write(at("unrelated"), "x").unwrap();
        fs::write(at("run/unrelated"), "x").unwrap();
        assert!(!is_told(&mut changes).await, "of other files");

        let steps: [(&str, &dyn Fn()); 7] = [
            ("its folder is made", &|| fs::create_dir(at("run/resolve")).unwrap()),
            ("it is made", &|| fs::write(at("run/resolve/file"), "1").unwrap()),
            ("it is written", &|| fs::write(at("run/resolve/file"), "2").unwrap()),
            ("it is replaced", &|| {
                fs::write(at("run/new"), "3").unwrap();
                fs::rename(at("run/new"), at("run/resolve/file")).unwrap();
            }),
            ("the other one is made", &|| fs::write(at("other"), "1").unwrap()),
            ("the link leads elsewhere", &|| {
                fs::remove_file(at("link")).unwrap();
                std::os::unix::fs::symlink("unrelated", at("link")).unwrap();
            }),
            ("the new target is written", &|| fs::write(at("unrelated"), "4").unwrap()),
        ];
        for (what, step) in steps {
            step();
            assert!(is_told(&mut changes).await, "{what}");
            assert!(!is_told(&mut changes).await, "{what}: once");
        }
        fs::write(at("run/resolve/file"), "5").unwrap();
        assert!(!is_told(&mut changes).await, "of what the link no longer leads to");
    }
}
