//! Regular expressions of schemas: written for Go's engine, matched by ours.

use regex::Regex;

/// Compiles a pattern as Go means it: `\d`, `\w`, `\s` and `\b` are of ASCII.
///
/// # Errors
/// What is wrong with the pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    Regex::new(&translate(pattern)).map_err(|e| {
        // The engine draws the pattern with a mark under the place; the last line says what is wrong.
        e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// The pattern with Go's ASCII classes spelt out.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '[' if !in_class => {
                in_class = true;
                out.push(c);
                // A bracket that comes first, negated or not, is an ordinary character.
                let mut rest = chars.clone();
                let mut first = rest.next();
                if first == Some('^') {
                    out.push('^');
                    chars.next();
                    first = rest.next();
                }
                if first == Some(']') {
                    out.push_str("\\]");
                    chars.next();
                }
            }
            // Go has no classes in classes but the named ones: a bracket there is itself.
            '[' if !chars.as_str().starts_with(':') => out.push_str("\\["),
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            ':' if in_class && chars.as_str().starts_with(']') && out.contains("[:") => {
                chars.next();
                out.push_str(":]");
            }
            ']' => {
                in_class = false;
                out.push(c);
            }
            '\\' => match chars.next() {
                Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some('w') => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('s') => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
                Some('D') => out.push_str("[^0-9]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some('B') if !in_class => out.push_str("(?-u:\\B)"),
                // Between these nothing is special.
                Some('Q') => {
                    let rest = chars.as_str();
                    let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
                    out.push_str(&regex::escape(literal));
                    chars = after.chars();
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, matches, fails) in [
            (r"^\d+$", "12", "٣"),
            (r"^[\w.-]+$", "a_b.c-d", "é"),
            (r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "a-b", "-a"),
            (r"^(\+|-)?([0-9]+(\.[0-9]*)?|\.[0-9]+)$", "+1.5", "x"),
            (r"^[[:alpha:]]+$", "ab", "a1"),
            (r"^[^]]$", "a", "]"),
            (r"^[[]$", "[", "a"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^[a&&b]+$", "a&b", "c"),
            (r"^.*:\/\/.*$", "a://b", "a:b"),
        ] {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(regex.is_match(matches), "{pattern} {matches}");
            assert!(!regex.is_match(fails), "{pattern} {fails}");
        }
        assert!(compile("(").is_err());
    }
}
