//! Redirects and links of pages that lead to the backend lead through the proxy again: upstream's rewriting transport.
//!
//! Only what names a place by a path from the root, or by the backend's own address, is changed. Pages go through as they
//! come, tag by tag; everything between the changed values stays as it was.

mod html;

use crate::body::{Body, BoxError, full};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::StreamExt;
use html::Page;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use std::io::Write;

/// Where the backend's root is for the client.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The path up to and with `/proxy`.
    pub(super) prefix: String,
    /// What the backend may call itself: its address, and how the client calls us.
    pub(super) hosts: Vec<String>,
}

impl Links {
    /// `link` through the proxy; `None` where it stays as it is.
    fn through(&self, link: &str) -> Option<String> {
        let link = link.trim();
        let (path, absolute) = match after_scheme(link) {
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (host, path) = rest.split_at_checked(end)?;
                if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
                    return None;
                }
                (path, true)
            }
            None => (link, false),
        };
        if !absolute && !path.starts_with('/') {
            return None;
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        let inside = path.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match (inside, absolute) {
            (true, true) => Some(path.to_owned()),
            (true, false) => None,
            (false, _) => Some(format!("{}{slash}{path}", self.prefix)),
        }
    }

    /// The backend's answer for the client.
    pub(super) fn rewrite(self, mut answer: Response<Body>) -> Response<Body> {
        let headers = answer.headers_mut();
        if let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) {
            let moved = self.through(location).and_then(|moved| HeaderValue::from_str(&moved).ok());
            if let Some(moved) = moved {
                headers.insert(header::LOCATION, moved);
            }
            return answer;
        }
        // A part of a page has no tags that could be told apart.
        let whole = !matches!(answer.status(), StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
        let Some(gzip) = encoding(answer.headers()).filter(|_| whole) else { return answer };
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ACCEPT_RANGES] {
            answer.headers_mut().remove(name);
        }
        let body = std::mem::replace(answer.body_mut(), full(""));
        *answer.body_mut() = page(body, Page::new(self), gzip);
        answer
    }
}

/// What follows `http://`, `https://` or `//`.
fn after_scheme(link: &str) -> Option<&str> {
    let start = |scheme: &str| link.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let scheme = ["http://", "https://", "//"].into_iter().find(|scheme| start(scheme))?;
    link.get(scheme.len()..)
}

/// Whether a page that can be read is compressed; `None` for what is no page, or cannot be read.
fn encoding(headers: &HeaderMap) -> Option<bool> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?").trim());
    let kind = text(header::CONTENT_TYPE)?.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/html") {
        return None;
    }
    match text(header::CONTENT_ENCODING) {
        None | Some("" | "identity") => Some(false),
        Some("gzip") => Some(true),
        Some(_) => None,
    }
}

fn page(body: Body, page: Page, gzip: bool) -> Body {
    struct Way {
        frames: BodyStream<Body>,
        unzip: Option<MultiGzDecoder<Vec<u8>>>,
        page: Page,
        done: bool,
    }
    let unzip = gzip.then(|| MultiGzDecoder::new(Vec::new()));
    let way = Way { frames: BodyStream::new(body), unzip, page, done: false };
    let frames = futures::stream::try_unfold(way, |mut way| async move {
        while !way.done {
            let bytes = match way.frames.next().await.transpose()? {
                Some(frame) => frame.into_data().unwrap_or_default(),
                None => {
                    way.done = true;
                    Bytes::new()
                }
            };
            let mut out = match &mut way.unzip {
                None => way.page.push(&bytes),
                Some(unzip) => {
                    unzip.write_all(&bytes)?;
                    if way.done {
                        unzip.try_finish()?
                    } else {
                        unzip.flush()?
                    }
                    way.page.push(&std::mem::take(unzip.get_mut()))
                }
            };
            if way.done {
                out.extend(way.page.finish());
            }
            if !out.is_empty() {
                return Ok::<_, BoxError>(Some((http_body::Frame::data(Bytes::from(out)), way)));
            }
        }
        Ok(None)
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn links() -> Links {
        Links { prefix: "/p/proxy".to_owned(), hosts: vec!["api.test".to_owned(), "10.1.0.5:80".to_owned()] }
    }

    #[test]
    fn only_links_to_the_backend_are_changed() {
        for (link, want) in [
            ("/", Some("/p/proxy/")),
            ("/a/b?c=d#e", Some("/p/proxy/a/b?c=d#e")),
            ("http://10.1.0.5:80/a/", Some("/p/proxy/a/")),
            ("http://10.1.0.5:80", Some("/p/proxy/")),
            ("HTTPS://API.test?x", Some("/p/proxy/?x")),
            ("//api.test/a", Some("/p/proxy/a")),
            ("https://api.test/p/proxy/a", Some("/p/proxy/a")),
            ("/p/proxy", None),
            ("/p/proxy/a", None),
            ("/p/proxying", Some("/p/proxy/p/proxying")),
            ("a/b", None),
            ("../a", None),
            ("", None),
            ("#top", None),
            ("//elsewhere.test/a", None),
            ("http://elsewhere.test/a", None),
            ("mailto:a@b", None),
        ] {
            assert_eq!(links().through(link).as_deref(), want, "{link}");
        }
    }

    async fn rewritten(headers: &[(&str, &str)], pieces: Vec<Vec<u8>>) -> (HeaderMap, Vec<u8>) {
        let frames = pieces.into_iter().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece))));
        let mut answer = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync());
        for (name, value) in headers {
            answer.headers_mut().insert(name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let (parts, body) = links().rewrite(answer).into_parts();
        (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn pages_are_rewritten_also_compressed_ones() {
        let text = r#"<a href="/rewriteme">test</a>"#;
        let want = r#"<a href="/p/proxy/rewriteme">test</a>"#;
        let bytewise = text.bytes().map(|b| vec![b]).collect();
        let html = ("content-type", "text/html; charset=utf-8");
        let (headers, body) = rewritten(&[html, ("content-length", "29")], bytewise).await;
        assert_eq!(String::from_utf8(body).unwrap(), want);
        assert!(!headers.contains_key("content-length"));
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(text.as_bytes()).unwrap();
        let zipped: Vec<Vec<u8>> = zip.finish().unwrap().chunks(5).map(<[u8]>::to_vec).collect();
        let (headers, body) = rewritten(&[html, ("content-encoding", "gzip")], zipped).await;
        assert_eq!(String::from_utf8(body).unwrap(), want);
        assert!(!headers.contains_key("content-encoding"));
        for other in [[("content-type", "text/plain")].as_slice(), &[html, ("content-encoding", "br")]] {
            assert_eq!(rewritten(other, vec![text.into()]).await.1, text.as_bytes(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn redirects_lead_through_the_proxy() {
        let (headers, _) = rewritten(&[("location", "/there")], Vec::new()).await;
        assert_eq!(headers["location"], "/p/proxy/there");
        let (headers, _) = rewritten(&[("location", "https://elsewhere.test/there")], Vec::new()).await;
        assert_eq!(headers["location"], "https://elsewhere.test/there");
    }
}
