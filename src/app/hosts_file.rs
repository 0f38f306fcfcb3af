//! `/etc/hosts`, without which containerd makes no pod: minimal roots lack it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

const PATH: &str = "/etc/hosts";
/// The last line tells ours from the machine's own.
const OURS: &str =
    "127.0.0.1\tlocalhost\n::1\tlocalhost\n# Made by mini, since pods need this file; mini reset removes it.\n";

/// Makes the file where there is none.
///
/// # Errors
/// It is missing and cannot be made.
pub(crate) fn ensure() -> io::Result<()> {
    ensure_at(Path::new(PATH))
}

/// Removes the file if it is still as it was made.
pub(crate) fn remove() {
    remove_at(Path::new(PATH));
}

fn ensure_at(path: &Path) -> io::Result<()> {
    match fs::File::create_new(path) {
        Ok(mut file) => {
            tracing::info!(path = %path.display(), "made the missing file");
            file.write_all(OURS.as_bytes())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_at(path: &Path) {
    if fs::read_to_string(path).is_ok_and(|text| text == OURS) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_file_is_made_and_only_our_own_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        ensure_at(&path).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("127.0.0.1\tlocalhost\n"));
        remove_at(&path);
        assert!(!path.exists());
        fs::write(&path, "127.0.0.1 mine\n").unwrap();
        ensure_at(&path).unwrap();
        remove_at(&path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1 mine\n");
    }
}
