//! Upstream's `--token-auth-file`: tokens known beforehand, one a line, as `token,user,uid,"group1,group2"`.
//!
//! A file that is not wholly understood is refused, and no word of it but the number of a line is ever repeated.

use crate::{Error, UserInfo};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Reads the file.
///
/// # Errors
/// It cannot be read, others than its owner may read it, or a line is not as it should be.
pub fn read(path: &Path) -> Result<BTreeMap<String, UserInfo>, Error> {
    let unreadable = |source| Error::File { path: path.to_owned(), source };
    let refused = |why| Error::Material { path: path.to_owned(), what: "tokens", why };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(refused(format!("its mode is {mode:04o} and others than its owner could read it; chmod 600 it")));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|_| refused("it is not UTF-8".to_owned()))?;
    tokens(&text).map_err(refused)
}

fn tokens(text: &str) -> Result<BTreeMap<String, UserInfo>, String> {
    let mut tokens = BTreeMap::new();
    for (line, record) in records(text)? {
        let mut fields = record.into_iter();
        let (Some(token), Some(name), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("line {line} must have at least 3 columns (token, user name, user uid)"));
        };
        if token.is_empty() || name.is_empty() {
            return Err(format!("line {line} has an empty token or user name"));
        }
        // A header carries it: what it cannot carry would never be found.
        if token.trim() != token || !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(format!("the token in line {line} has characters that no header can carry"));
        }
        let groups = fields.next().unwrap_or_default();
        let groups: Vec<&str> = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).collect();
        let user = UserInfo { uid, ..UserInfo::new(&name, &groups) };
        if tokens.insert(token, user).is_some() {
            return Err(format!("line {line} repeats a token"));
        }
    }
    Ok(tokens)
}

/// The records of a CSV text with the numbers of their first lines. Empty lines are none.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut records = Vec::new();
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).zip(1..);
    while let Some((mut rest, first)) = lines.next() {
        if rest.is_empty() {
            continue;
        }
        let mut record = Vec::new();
        loop {
            let Some(mut quoted) = rest.strip_prefix('"') else {
                let (field, after) = rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
                if field.contains('"') {
                    return Err(format!("line {first} has a quotation mark inside a field without quotes"));
                }
                record.push(field.to_owned());
                match after {
                    Some(after) => rest = after,
                    None => break,
                }
                continue;
            };
            let mut field = String::new();
            // A quotation mark in quotes is written twice; a line may end inside of them.
            let after = loop {
                match quoted.split_once('"') {
                    Some((part, after)) => {
                        field.push_str(part);
                        match after.strip_prefix('"') {
                            Some(more) => {
                                field.push('"');
                                quoted = more;
                            }
                            None => break after,
                        }
                    }
                    None => {
                        field.push_str(quoted);
                        field.push('\n');
                        quoted = lines.next().ok_or_else(|| format!("the quotes in line {first} do not end"))?.0;
                    }
                }
            };
            record.push(field);
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None if after.is_empty() => break,
                None => return Err(format!("line {first} goes on behind the quotes of a field")),
            }
        }
        records.push((first, record));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let text = "abc,jane,u1\n\r\nd ef,joe,u2,\"dev,ops\"\r\n\"g\"\"h\",ann,,one,more\n";
        let found = tokens(text).unwrap();
        let user = |token: &str| {
            let user = &found[token];
            (user.name.as_str(), user.uid.as_str(), user.groups.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(user("abc"), ("jane", "u1", vec!["system:authenticated"]));
        assert_eq!(user("d ef"), ("joe", "u2", vec!["dev", "ops", "system:authenticated"]));
        assert_eq!(user("g\"h"), ("ann", "", vec!["one", "system:authenticated"]));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn bad_lines_are_refused_without_a_word_of_them() {
        for (text, said) in [
            ("hush,jane", "line 1 must have at least 3 columns"),
            ("\nhush,,1", "line 2 has an empty token or user name"),
            (",jane,1", "empty token"),
            ("hush,jane,1\nhush,joe,2", "line 2 repeats a token"),
            ("hush,jane,\"1", "the quotes in line 1 do not end"),
            ("hush,ja\"ne,1", "quotation mark inside a field"),
            ("\"hush\"x,jane,1", "goes on behind the quotes"),
            ("hüsh,jane,1", "no header can carry"),
        ] {
            let why = tokens(text).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
            assert!(!why.contains("hush"), "{why}");
        }
    }

    #[test]
    fn nobody_else_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        std::fs::write(&path, "abc,jane,u1\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        let why = read(&path).unwrap_err().to_string();
        assert!(why.contains("its mode is 0640") && why.contains("chmod 600"), "{why}");
        mode(0o600);
        assert_eq!(read(&path).unwrap().len(), 1);
    }
}
