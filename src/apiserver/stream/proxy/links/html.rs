//! The links of a page, as it comes in pieces. Reads as much HTML as finding start tags and their attributes takes.

use super::Links;
use std::ops::Range;

/// Attributes with a link, by tag; those that upstream knows.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Tags whose inside is text, whatever it looks like.
const TEXT: &[&str] = &["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];
/// What would end an attribute's value, or mean something else in it.
const ESCAPES: [(char, &str); 6] =
    [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;"), ('`', "&#96;")];
/// A tag that has not ended by then is none.
const LONGEST: usize = 256 * 1024;

pub(super) struct Page {
    /// With the prefix as it stands in an attribute.
    links: Links,
    /// What has come and cannot be told apart yet.
    pending: Vec<u8>,
    /// The tag whose end the text ends with.
    inside: Option<&'static str>,
}

/// How far something at the start of the bytes reaches.
enum Reach {
    /// It is there to this end.
    To(usize),
    /// More is to come before that can be said.
    Unknown,
}

impl Page {
    pub(super) fn new(mut links: Links) -> Self {
        for (plain, escaped) in ESCAPES {
            links.prefix = links.prefix.replace(plain, escaped);
        }
        Self { links, pending: Vec::new(), inside: None }
    }

    /// As much of the page as can be told by now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let (reach, copied) = match self.inside {
                Some(tag) => (self.text(rest, tag), true),
                None if rest.first() == Some(&b'<') => (self.markup(rest, &mut out), false),
                None => (Reach::To(rest.iter().position(|b| *b == b'<').unwrap_or(rest.len())), true),
            };
            match reach {
                Reach::To(end) => {
                    let (done, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                    if copied {
                        out.extend_from_slice(done);
                    }
                    rest = after;
                }
                Reach::Unknown if rest.len() > LONGEST => {
                    out.extend_from_slice(rest);
                    rest = &[];
                }
                Reach::Unknown => break,
            }
        }
        self.pending = rest.to_vec();
        out
    }

    /// What is left when no more comes.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// The inside of a tag that holds text, up to its end tag.
    fn text(&mut self, rest: &[u8], tag: &'static str) -> Reach {
        let end = format!("</{tag}");
        let found = rest.windows(end.len()).position(|window| window.eq_ignore_ascii_case(end.as_bytes()));
        match found {
            Some(at) => {
                self.inside = None;
                Reach::To(at)
            }
            // The last bytes may be the start of it.
            None => match rest.len().saturating_sub(end.len() - 1) {
                0 => Reach::Unknown,
                sure => Reach::To(sure),
            },
        }
    }

    /// What begins with `<`; writes it out.
    fn markup(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Reach {
        let to = |end: Option<usize>| end.map_or(Reach::Unknown, Reach::To);
        let close = |from: usize| rest.iter().skip(from).position(|b| *b == b'>').map(|at| from + at + 1);
        let comment = b"<!--";
        let reach = match rest.get(1) {
            None => Reach::Unknown,
            Some(b'!') if comment.starts_with(rest) => Reach::Unknown,
            Some(b'!') if rest.starts_with(comment) => {
                // `<!-->` is a comment too.
                to(rest.windows(3).skip(2).position(|window| window == b"-->").map(|at| at + 5))
            }
            Some(b'!' | b'?' | b'/') => to(close(2)),
            Some(first) if first.is_ascii_alphabetic() => {
                let Some(tag) = Tag::read(rest) else { return Reach::Unknown };
                self.inside = TEXT.iter().find(|text| tag.name.eq_ignore_ascii_case(text.as_bytes())).copied();
                self.write(rest, &tag, out);
                return Reach::To(tag.end);
            }
            Some(_) => Reach::To(1),
        };
        if let Reach::To(end) = reach {
            out.extend_from_slice(rest.get(..end).unwrap_or(rest));
        }
        reach
    }

    /// A start tag with its links through the proxy.
    fn write(&self, rest: &[u8], tag: &Tag<'_>, out: &mut Vec<u8>) {
        let known = LINKS.iter().find(|(name, _)| tag.name.eq_ignore_ascii_case(name.as_bytes()));
        let wanted = known.map(|(_, attributes)| *attributes).unwrap_or_default();
        let mut copied = 0;
        for (name, value) in &tag.attributes {
            let is_link = wanted.iter().any(|link| name.eq_ignore_ascii_case(link.as_bytes()));
            let text = rest.get(value.clone()).filter(|_| is_link).and_then(|text| std::str::from_utf8(text).ok());
            if let Some(link) = text.and_then(|text| self.links.through(text)) {
                out.extend_from_slice(rest.get(copied..value.start).unwrap_or_default());
                out.extend_from_slice(link.as_bytes());
                copied = value.end;
            }
        }
        out.extend_from_slice(rest.get(copied..tag.end).unwrap_or_default());
    }
}

/// A start tag.
struct Tag<'a> {
    name: &'a [u8],
    /// Names, and where the values are.
    attributes: Vec<(&'a [u8], Range<usize>)>,
    end: usize,
}

impl<'a> Tag<'a> {
    /// `None`: it has not ended yet.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let until =
            |from: usize, stop: &dyn Fn(u8) -> bool| bytes.iter().skip(from).position(|b| stop(*b)).map(|at| from + at);
        let space = |b: u8| b.is_ascii_whitespace();
        let mut at = until(1, &|b| space(b) || matches!(b, b'/' | b'>'))?;
        let name = bytes.get(1..at)?;
        let mut attributes = Vec::new();
        loop {
            at = until(at, &|b| !space(b) && b != b'/')?;
            if bytes.get(at) == Some(&b'>') {
                return Some(Self { name, attributes, end: at + 1 });
            }
            // A name may begin with `=`.
            let end = until(at + 1, &|b| space(b) || matches!(b, b'/' | b'>' | b'='))?;
            let attribute = bytes.get(at..end)?;
            at = until(end, &|b| !space(b))?;
            if bytes.get(at) != Some(&b'=') {
                continue;
            }
            let start = until(at + 1, &|b| !space(b))?;
            let value = match *bytes.get(start)? {
                quote @ (b'"' | b'\'') => start + 1..until(start + 1, &|b| b == quote)?,
                _ => start..until(start, &|b| space(b) || b == b'>')?,
            };
            at = value.end + usize::from(value.start > start);
            attributes.push((attribute, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::links;
    use super::*;

    fn rewritten(page: &str) -> String {
        let whole = {
            let mut reader = Page::new(links());
            let mut out = reader.push(page.as_bytes());
            out.extend(reader.finish());
            out
        };
        let mut reader = Page::new(links());
        let mut bytewise: Vec<u8> = page.bytes().flat_map(|b| reader.push(&[b])).collect();
        bytewise.extend(reader.finish());
        assert_eq!(whole, bytewise, "{page}");
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn links_are_found_where_upstream_knows_them() {
        for (page, want) in [
            ("<a href='/x'>", "<a href='/p/proxy/x'>"),
            ("<A\n  HREF = /x>y", "<A\n  HREF = /p/proxy/x>y"),
            ("<img alt=\"a > b\" src=\"/i.png\"/>", "<img alt=\"a > b\" src=\"/p/proxy/i.png\"/>"),
            (
                "<form method=post action=/do><input formaction=\"/go\">",
                "<form method=post action=/p/proxy/do><input formaction=\"/p/proxy/go\">",
            ),
            ("<link rel=icon href=/i><script src=/a.js>", "<link rel=icon href=/p/proxy/i><script src=/p/proxy/a.js>"),
            ("<base href=\"http://10.1.0.5:80/\">", "<base href=\"/p/proxy/\">"),
        ] {
            assert_eq!(rewritten(page), want);
        }
    }

    #[test]
    fn everything_else_stays() {
        for page in [
            "plain text < 3, a <b>word</b>",
            "<!DOCTYPE html><!-- <a href=\"/x\"> --><p data-href=\"/x\">",
            "<script>if (a < b) document.write('<a href=\"/x\">')</script>",
            "<style>a { background: url(/x) }</style><title><a href=/x></title>",
            "<a href=\"x\"><a href=\"https://elsewhere.test/\"><a name=/x><p href=/x>",
            "<a href=\"/x",
            "<a",
            "</a href=/x>",
            "<?php <a href=/x>",
            "<a href",
            "<",
            "<!-",
            "<a = href==/x>",
            "",
        ] {
            assert_eq!(rewritten(page), page);
        }
    }

    #[test]
    fn pages_are_the_same_in_any_pieces() {
        let corpus: &[&[u8]] = &[
            b"<!DOCTYPE html><a href='/x'>y</a><img src=/i.png><script src=\"/a\">if (a < b) '<a href=/>'</script>",
            b"<!-- <a href=/x> --><form action=//api.test/a?b#c><title>t</title><meta content='0;url=/x'>",
        ];
        mini_fuzz::run(
            corpus,
            &["<a href=/", "'", "\"", ">", "</script>", "<!--", "-->", "<title>", "&amp;", "="],
            |input| {
                rewritten(&String::from_utf8_lossy(input.get(..500).unwrap_or(input)))
                    .matches("/p/proxy")
                    .count()
                    .min(5)
            },
        );
    }

    #[test]
    fn a_prefix_cannot_end_its_attribute() {
        let mut links = links();
        links.prefix = "/a'b\"c&d/proxy".to_owned();
        let mut page = Page::new(links);
        let out = page.push(b"<a href='/x'><a href='/a&#39;b&#34;c&amp;d/proxy/y'>");
        let want = "<a href='/a&#39;b&#34;c&amp;d/proxy/x'><a href='/a&#39;b&#34;c&amp;d/proxy/y'>";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn a_tag_without_end_does_not_grow_for_ever() {
        let mut page = Page::new(links());
        let mut out = page.push(b"<a href=\"");
        out.extend(page.push(&vec![b'x'; LONGEST + 1]));
        assert_eq!(out.len(), LONGEST + 10);
        assert_eq!(page.push(b"<a href=/x>"), b"<a href=/p/proxy/x>");
    }
}
