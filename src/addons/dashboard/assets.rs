//! The page's files, embedded, compressed once at start.

use super::forward::{Body, full};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

const FILES: [(&str, &str, &[u8]); 4] = [
    ("/", "text/html; charset=utf-8", include_bytes!("dist/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_bytes!("dist/app.js")),
    ("/app.css", "text/css; charset=utf-8", include_bytes!("dist/app.css")),
    ("/icon.svg", "image/svg+xml", include_bytes!("dist/icon.svg")),
];

struct Asset {
    path: &'static str,
    content_type: HeaderValue,
    etag: HeaderValue,
    plain: Bytes,
    gzip: Bytes,
}

pub(super) struct Assets(Vec<Asset>);

impl Assets {
    pub(super) fn new() -> io::Result<Self> {
        let asset = |(path, content_type, bytes): (&'static str, &'static str, &'static [u8])| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes)?;
            let digest = hex::encode(Sha256::digest(bytes));
            Ok(Asset {
                path,
                content_type: HeaderValue::from_static(content_type),
                etag: HeaderValue::from_str(&format!("\"{digest}\"")).map_err(io::Error::other)?,
                plain: Bytes::from_static(bytes),
                gzip: encoder.finish()?.into(),
            })
        };
        FILES.into_iter().map(asset).collect::<io::Result<_>>().map(Self)
    }

    /// `None` if there is no such file.
    pub(super) fn get(&self, path: &str, asked: &HeaderMap) -> Option<Response<Body>> {
        let asset = self.0.iter().find(|asset| asset.path == path)?;
        let says = |name: header::HeaderName, wanted: &str| {
            asked.get_all(name).iter().filter_map(|v| v.to_str().ok()).any(|v| v.contains(wanted))
        };
        let mut response = Response::new(full(Bytes::new()));
        // A new version of mini brings new files below the same names: browsers ask each time, and mostly hear 304.
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::ETAG, asset.etag.clone());
        if asset.etag.to_str().is_ok_and(|etag| says(header::IF_NONE_MATCH, etag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        headers.insert(header::CONTENT_TYPE, asset.content_type.clone());
        let gzip = says(header::ACCEPT_ENCODING, "gzip");
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *response.body_mut() = full(if gzip { &asset.gzip } else { &asset.plain }.clone());
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_compressed_for_those_who_take_it_and_sent_once() {
        let assets = Assets::new().unwrap();
        let plain = assets.get("/app.js", &HeaderMap::new()).unwrap();
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"));
        let small = assets.get("/app.js", &asked).unwrap();
        assert_eq!(small.headers()[header::CONTENT_ENCODING], "gzip");
        asked.insert(header::IF_NONE_MATCH, small.headers()[header::ETAG].clone());
        assert_eq!(assets.get("/app.js", &asked).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert!(assets.get("/app.jsx", &asked).is_none());
    }

    #[test]
    fn the_page_names_only_its_own_relative_files_and_has_no_inline_code() {
        let page = std::str::from_utf8(FILES[0].2).unwrap();
        let linked = page.split(['"', '\'']).skip(1).step_by(2).filter(|text| text.contains('.'));
        for link in linked {
            assert!(FILES.iter().any(|(path, _, _)| path.strip_prefix('/') == Some(link)), "{link}");
        }
        assert!(!page.contains("<style") && !page.contains("style=") && page.contains("></script>"), "{page}");
    }
}
