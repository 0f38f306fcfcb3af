//! Container logs as CRI writes them: `<time> <stream> <P|F> <text>`, one line each; `P` is continued by the next.

use crate::agent::Shared;
use crate::labels;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// No more than this is handed out at once.
const CHUNK: usize = 64 << 10;
const BLOCK: u64 = 64 << 10;
/// A log larger than this is rotated, and so many files of one container are kept.
const ROTATE_BYTES: u64 = 10 << 20;
const ROTATE_FILES: usize = 5;

#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Only the last so many lines.
    pub(crate) tail: Option<u64>,
    /// No more bytes than that.
    pub(crate) limit: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    /// `stdout` or `stderr` alone.
    pub(crate) stream: Option<String>,
}

/// Reads a log from the place its options name, and on as it grows and is rotated.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    options: Options,
    left: Option<u64>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    at_line_start: bool,
}

impl Reader {
    pub(crate) fn open(path: PathBuf, options: Options) -> io::Result<Self> {
        let mut file = File::open(&path)?;
        if let Some(lines) = options.tail {
            let start = tail_offset(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let left = options.limit;
        Ok(Self { path, file: BufReader::new(file), options, left, partial: Vec::new(), at_line_start: true })
    }

    /// True when the byte limit is reached.
    pub(crate) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// What there is, up to a chunk; empty at the present end.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < CHUNK && !self.is_done() {
            let n = self.file.read_until(b'\n', &mut self.partial)?;
            if n == 0 {
                if out.is_empty() && self.partial.is_empty() && self.rotated() {
                    self.file = BufReader::new(File::open(&self.path)?);
                    continue;
                }
                break;
            }
            if self.partial.last() != Some(&b'\n') {
                break;
            }
            let line = std::mem::take(&mut self.partial);
            self.take_line(&line, &mut out);
        }
        Ok(out)
    }

    fn take_line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(parsed) = Line::parse(line) else { return };
        if self.options.stream.as_deref().is_some_and(|s| s.as_bytes() != parsed.stream) {
            return;
        }
        let time = std::str::from_utf8(parsed.time).unwrap_or_default();
        if let Some(since) = self.options.since
            && time.parse::<Timestamp>().is_ok_and(|t| t < since)
        {
            return;
        }
        let mut text = Vec::new();
        if self.options.timestamps && self.at_line_start {
            text.extend_from_slice(parsed.time);
            text.push(b' ');
        }
        text.extend_from_slice(parsed.text);
        if !parsed.partial {
            text.push(b'\n');
        }
        self.at_line_start = !parsed.partial;
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        out.append(&mut text);
    }

    /// Whether the file under our path is another one now.
    fn rotated(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (std::fs::metadata(&self.path), self.file.get_ref().metadata()) {
            (Ok(there), Ok(here)) => there.ino() != here.ino(),
            _ => false,
        }
    }
}

struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    partial: bool,
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |b| *b == b' ');
        let (time, stream, tag) = (fields.next()?, fields.next()?, fields.next()?);
        let partial = tag.split(|b| *b == b':').next() == Some(b"P");
        Some(Self { time, stream, partial, text: fields.next().unwrap_or_default() })
    }
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let len = file.metadata()?.len();
    if lines == 0 {
        return Ok(len);
    }
    let mut found = 0;
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        for (i, byte) in block.iter().enumerate().rev() {
            let at = start + i as u64;
            // The newline that ends the file begins no line.
            if *byte == b'\n' && at + 1 < len {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// Moves logs that have grown too large aside, and has containerd begin new ones.
pub(crate) async fn rotate_all(shared: &Shared) {
    let running = i32::from(k8s_cri::v1::ContainerState::ContainerRunning);
    for container in shared.runtime.containers(HashMap::new()).await.unwrap_or_default() {
        let label = |name: &str| container.labels.get(name).map(String::as_str).unwrap_or_default();
        let attempt = container.annotations.get(labels::RESTART_COUNT).map(String::as_str).unwrap_or("0");
        let pod = format!("{}_{}_{}", label(labels::POD_NAMESPACE), label(labels::POD_NAME), label(labels::POD_UID));
        let path =
            shared.config.pod_logs_dir.join(pod).join(label(labels::CONTAINER_NAME)).join(format!("{attempt}.log"));
        let large = std::fs::metadata(&path).is_ok_and(|m| m.len() > ROTATE_BYTES);
        if container.state != running || !large {
            continue;
        }
        if let Err(error) = rotate(&path) {
            tracing::warn!(path = %path.display(), %error, "log not rotated");
        } else if let Err(status) = shared.runtime.reopen_log(&container.id).await {
            tracing::warn!(path = %path.display(), error = status.message(), "log not begun anew");
        }
    }
}

/// `0.log` becomes `0.log.<time>`; of those the newest few stay.
fn rotate(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let now = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    std::fs::rename(path, path.with_file_name(format!("{name}.{now}")))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut old: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{name}.")))
        .map(|e| e.path())
        .collect();
    old.sort();
    for path in old.iter().rev().skip(ROTATE_FILES - 1) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LOG: &str = "2026-01-01T00:00:00.1Z stdout F one\n2026-01-01T00:00:01.1Z stderr F two\n\
        2026-01-01T00:00:02.1Z stdout P thr\n2026-01-01T00:00:02.2Z stdout F ee\n2026-01-01T00:00:03Z stdout F \n";

    fn read(name: &str, options: Options) -> String {
        let path = std::env::temp_dir().join(format!("mini-log-{}-{name}", std::process::id()));
        std::fs::write(&path, LOG).unwrap();
        let text = Reader::open(path.clone(), options).unwrap().read().unwrap();
        std::fs::remove_file(path).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn options_choose_lines() {
        assert_eq!(read("all", Options::default()), "one\ntwo\nthree\n\n");
        assert_eq!(read("tail", Options { tail: Some(1), ..Options::default() }), "\n");
        assert_eq!(read("tail3", Options { tail: Some(3), ..Options::default() }), "three\n\n");
        assert_eq!(read("none", Options { tail: Some(0), ..Options::default() }), "");
        assert_eq!(read("limit", Options { limit: Some(5), ..Options::default() }), "one\nt");
        assert_eq!(read("err", Options { stream: Some("stderr".into()), ..Options::default() }), "two\n");
        let since = Options { since: "2026-01-01T00:00:02Z".parse().ok(), ..Options::default() };
        assert_eq!(read("since", since), "three\n\n");
        let times = Options { timestamps: true, tail: Some(3), ..Options::default() };
        assert_eq!(read("times", times), "2026-01-01T00:00:02.1Z three\n2026-01-01T00:00:03Z \n");
    }

    #[test]
    fn a_growing_log_is_read_on_and_over_a_rotation() {
        let path = std::env::temp_dir().join(format!("mini-log-{}-grow", std::process::id()));
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F a\n2026-01-01T00:00:00Z std").unwrap();
        let mut reader = Reader::open(path.clone(), Options::default()).unwrap();
        assert_eq!(reader.read().unwrap(), b"a\n");
        assert_eq!(reader.read().unwrap(), b"");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"out F b\n").unwrap();
        assert_eq!(reader.read().unwrap(), b"b\n");
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:00Z stdout F c\n").unwrap();
        assert_eq!(reader.read().unwrap(), b"c\n");
        std::fs::remove_file(path.with_extension("1")).unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
