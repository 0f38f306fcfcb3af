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

/// Where in a class of characters a translation is: what a hyphen means depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// At the start, behind a range or behind a class within: a hyphen is itself.
    Fresh,
    /// Behind a character with which a range may begin.
    Low,
    /// Behind the hyphen of a range.
    High,
}

impl Place {
    /// Behind one more character.
    fn next(self) -> Self {
        match self {
            Self::Outside => Self::Outside,
            Self::Fresh | Self::Low => Self::Low,
            Self::High => Self::Fresh,
        }
    }
}

/// The pattern with Go's ASCII classes spelt out, and what is special for our engine only made ordinary.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    let mut place = Place::Outside;
    while let Some(c) = chars.next() {
        let in_class = place != Place::Outside;
        match c {
            '[' if !in_class => {
                place = Place::Fresh;
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
                    place = Place::Low;
                }
            }
            // Go has no classes in classes but the named ones: a bracket there is itself.
            '[' if !chars.as_str().starts_with(':') => {
                out.push_str("\\[");
                place = place.next();
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
                place = place.next();
            }
            '-' if in_class => {
                let ranges = place == Place::Low && !chars.as_str().is_empty() && !chars.as_str().starts_with(']');
                out.push_str(if ranges { "-" } else { "\\-" });
                place = if ranges { Place::High } else { place.next() };
            }
            ':' if in_class && chars.as_str().starts_with(']') && out.contains("[:") => {
                chars.next();
                out.push_str(":]");
                place = Place::Fresh;
            }
            ']' => {
                place = Place::Outside;
                out.push(c);
            }
            '{' if !in_class && !repeats(chars.as_str()) => out.push_str("\\{"),
            '\\' => {
                let class = escape(&mut chars, in_class, &mut out);
                place = if in_class && class { Place::Fresh } else { place.next() };
            }
            other => {
                out.push(other);
                place = place.next();
            }
        }
    }
    out
}

/// Whether what follows a brace makes it a repetition: a number, or two, or one and a comma.
fn repeats(rest: &str) -> bool {
    let number = |text: &str| {
        text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() && (text.len() == 1 || !text.starts_with('0'))
    };
    let Some((inner, _)) = rest.split_once('}') else { return false };
    match inner.split_once(',') {
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
        None => number(inner),
    }
}

/// What follows a backslash; answers whether it is a class of characters.
fn escape(chars: &mut std::str::Chars<'_>, in_class: bool, out: &mut String) -> bool {
    let Some(c) = chars.next() else {
        out.push('\\');
        return false;
    };
    match c {
        'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
        'w' => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
        's' => out.push_str(if in_class { "\\t\\n\\f\\r " } else { "[\\t\\n\\f\\r ]" }),
        'D' => out.push_str("[^0-9]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        // Between these nothing is special.
        'Q' => {
            let rest = chars.as_str();
            let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            *chars = after.chars();
        }
        // For our engine these are the edges of words.
        '<' | '>' => out.push(c),
        other => {
            out.push('\\');
            out.push(other);
            // A name or number in braces belongs to it.
            if matches!(other, 'p' | 'P' | 'x')
                && let Some((name, after)) = chars.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}'))
            {
                out.push_str(&format!("{{{name}}}"));
                *chars = after.chars();
            } else if matches!(other, 'p' | 'P')
                && let Some(name) = chars.next()
            {
                out.push(name);
            }
        }
    }
    matches!(c, 'd' | 'w' | 's' | 'D' | 'W' | 'S' | 'p' | 'P')
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
            (r"^{{[a-z]+}}$", "{{a}}", "a"),
            (r"^a{,2}$", "a{,2}", "aa"),
            (r"^a{2,3}b{1}c{1,}$", "aabcc", "abc"),
            (r"^\p{Greek}\x{41}\pL$", "αAb", "aAb"),
            (r"^\<a\>$", "<a>", "a"),
            (r"^[+--]+$", "+,-", "."),
            (r"^[a-c--]+$", "a-c", "d"),
            (r"^[\w-.]+$", "a-.", "/"),
            (r"^[-a-z]+$", "-a", "_"),
        ] {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(regex.is_match(matches), "{pattern} {matches}");
            assert!(!regex.is_match(fails), "{pattern} {fails}");
        }
        assert!(compile("(").is_err());
    }
}
