//! A kubelet that has nothing but its streams.

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mini_pki::Pki;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Serves until the runtime ends; answers its port.
pub(crate) async fn start(pki: &Pki) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&pki.ca).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&pki.kubelet_server.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&pki.kubelet_server.key).unwrap(),
        )
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service_fn(serve)).with_upgrades().await;
            });
        }
    });
    port
}

const SUMMARY: &str = r#"{"pods": [], "node": {"memory": {"workingSetBytes": 1048576000},
    "cpu": {"time": "2026-01-02T03:04:05Z", "usageNanoCores": 250000000, "windowNanoSeconds": 10062000000}}}"#;

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert!(!request.headers().contains_key(header::AUTHORIZATION), "the client's credentials were passed on");
    let target = request.uri().to_string();
    if target.starts_with("/containerLogs/") {
        return Ok(Response::new(Full::new(target.into())));
    }
    if target.starts_with("/stats/summary") {
        return Ok(Response::new(Full::new(SUMMARY.into())));
    }
    if target.starts_with("/stats/echo") {
        return Ok(echo_request(request).await);
    }
    if target.contains("command=refuse") || !request.headers().contains_key(header::UPGRADE) {
        let mut response = Response::new(Full::new("container not running".into()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(response);
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in ["connection", "upgrade", "x-stream-protocol-version"] {
        if let Some(value) = request.headers().get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    assert_eq!(response.headers().get("upgrade"), Some(&HeaderValue::from_static("SPDY/3.1")));
    tokio::spawn(async move {
        let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        if target.contains("command=session") { session(upgraded).await } else { echo(upgraded).await }
    });
    Ok(response)
}

/// What was asked, as text: method, path and headers, then the body. `/page` has a link, `/moved` is a redirect.
async fn echo_request(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: String =
        parts.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    let host = parts.headers["host"].to_str().unwrap();
    let (kind, text) = match parts.uri.path() {
        "/stats/echo/page" => ("text/html", format!("<a href=\"/rewriteme\">test</a><a href=\"https://{host}/x\">")),
        _ => ("text/plain", format!("{} {}\n{headers}\n{}", parts.method, parts.uri, String::from_utf8_lossy(&body))),
    };
    let mut response = Response::new(Full::new(text.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if parts.uri.path() == "/stats/echo/moved" {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(header::LOCATION, format!("https://{host}/there").parse().unwrap());
    }
    response
}

async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// Speaks SPDY: what comes on stdin (stream 3) goes to stdout (stream 5); its end is told on the error stream (1).
async fn session(mut stream: TokioIo<hyper::upgrade::Upgraded>) {
    let frame = |id: u32, flags: u32, bytes: &[u8]| {
        let mut frame = BytesMut::new();
        frame.put_u32(id);
        frame.put_u32(flags << 24 | u32::try_from(bytes.len()).unwrap());
        frame.put_slice(bytes);
        frame
    };
    let (mut buffer, mut opened) = (BytesMut::new(), 0);
    while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
        while buffer.len() >= 8 {
            let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
            if buffer.len() < 8 + length {
                break;
            }
            let (first, flags) = (buffer.get_u32(), buffer.get_u32() >> 24);
            let body = buffer.split_to(length);
            if first == 0x8003_0001 {
                opened += 1;
                // The reply, with headers that nobody reads, and a ping that must come back.
                stream.write_all(b"\x80\x03\0\x02\0\0\0\x06\0\0\0\x01zz").await.unwrap();
                stream.write_all(b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x02").await.unwrap();
            } else if first == 0x8003_0006 {
                assert_eq!(&body[..], [0, 0, 0, 2]);
            } else if first == 3 && flags & 1 == 0 {
                stream.write_all(&frame(5, 0, &body)).await.unwrap();
            } else if first == 3 {
                assert_eq!(opened, 4);
                stream.write_all(&frame(1, 1, br#"{"status":"Success"}"#)).await.unwrap();
                for id in [5, 7] {
                    stream.write_all(&frame(id, 1, b"")).await.unwrap();
                }
            }
        }
    }
}
