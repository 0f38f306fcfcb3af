//! HTTPS: HTTP/2, certificates by name, and backends that speak TLS.

use super::super::certificates::{Keys, tests::pair};
use super::super::tls;
use super::*;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn key(names: &[&str]) -> Arc<CertifiedKey> {
    let (certificate, key) = pair(names);
    let data = [("tls.crt", certificate), ("tls.key", key)];
    let data = data.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).collect();
    Keys::default().of(&Secret { data: Some(data), ..Secret::default() }).unwrap()
}

async fn connect(address: SocketAddr, name: &str, protocol: &str) -> TlsStream<TcpStream> {
    let config = tls::client_config(&[protocol]).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn names_are_shown_their_certificates() {
    let echo = head_echo().await;
    let (own, wild) = (key(&["a.b"]), key(&["*.c"]));
    let mut routes = one(echo.address);
    routes.certificates.add("a.b", &own);
    routes.certificates.add("*.c", &wild);
    let proxy = Proxy::start(routes);
    let shown = async |name: &str| {
        let stream = connect(proxy.workers.https, name, "http/1.1").await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(shown("a.b").await, own.cert[0]);
    assert_eq!(shown("x.c").await, wild.cert[0]);
    let fallback = shown("else.d").await;
    assert!(fallback != own.cert[0] && fallback != wild.cert[0]);

    let mut client = connect(proxy.workers.https, "a.b", "http/1.1").await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.b\r\n\r\n").await.unwrap();
    let answer = read_until(&mut client, "x-real-ip: 127.0.0.1\n").await;
    assert!(answer.contains("x-forwarded-port: 8443\nx-forwarded-proto: https\n"), "{answer}");
}

#[tokio::test]
async fn http2_is_served_and_becomes_http1() {
    let echo = head_echo().await;
    let upper = backend(|request| async move { Response::new(request.into_body()) }).await;
    let proxy = Proxy::start(table(vec![
        ("", Matcher::prefix("/"), route(&[echo.address], Settings::default())),
        ("", Matcher::prefix("/body"), route(&[upper.address], Settings::default())),
    ]));
    let stream = connect(proxy.workers.https, "a.b", "h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let many = (0..20).map(|number| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let request = Request::post(format!("https://a.b/{}", if number % 2 == 0 { "x" } else { "body" }))
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(paused(["ab", "cd"]))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
        })
    });
    for (number, answer) in many.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = answer.await.unwrap();
        if number % 2 == 0 {
            assert!(answer.starts_with("POST /x HTTP/1.1\ncookie: a=1; b=2\nhost: a.b\n"), "{answer}");
            assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
        } else {
            assert_eq!(answer, "abcd");
        }
    }
}

/// A body of these parts with pauses between them.
fn paused(parts: [&'static str; 2]) -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin {
    let frames = futures::stream::unfold(parts.into_iter(), |mut parts| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok(http_body::Frame::data(Bytes::from_static(parts.next()?.as_bytes()))), parts))
    });
    StreamBody::new(Box::pin(frames))
}

#[tokio::test]
async fn backends_may_speak_tls() {
    let mut own = Table::default();
    own.certificates.add("", &key(&["x"]));
    let acceptor = TlsAcceptor::from(tls::server_config(Arc::new(Live::new(own))).unwrap());
    let secure = raw_backend(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            read_until(&mut stream, "\r\n\r\n").await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntls").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let settings = Settings { tls_backend: true, ..Settings::default() };
    let proxy = Proxy::start(table(vec![("", Matcher::prefix("/"), route(&[secure.address], settings))]));
    assert!(proxy.get("a", "/").await.ends_with("tls"));
}

/// As gRPC servers answer: what was asked for in the body, the outcome behind it.
async fn told_in_trailers(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let te = request.headers().get("te").map_or("none", |te| te.to_str().unwrap_or("?")).to_owned();
    let text = format!("{:?} {} te: {te}, ", request.version(), request.uri());
    let sent = request.into_body().collect().await.unwrap();
    let asked = sent.trailers().and_then(|trailers| trailers.get("asked")).cloned();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.extend(asked.map(|asked| (http::HeaderName::from_static("asked"), asked)));
    let data = Bytes::from([text.as_bytes(), &sent.to_bytes()].concat());
    let frames = [http_body::Frame::data(data), http_body::Frame::trailers(trailers)];
    Ok(Response::new(StreamBody::new(futures::stream::iter(frames.map(Ok)))))
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    use hyper::server::conn::http2 as server;
    let plain = raw_backend(|stream, _| async move {
        let service = service_fn(told_in_trailers);
        let _ = server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    let mut own = Table::default();
    own.certificates.add("", &key(&["x"]));
    let acceptor = TlsAcceptor::from(tls::server_config(Arc::new(Live::new(own))).unwrap());
    let secure = raw_backend(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let service = service_fn(told_in_trailers);
            let _ = server::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let grpc = Settings { h2_backend: true, ..Settings::default() };
    let grpcs = Settings { tls_backend: true, ..grpc.clone() };
    let by_port = Arc::new(Backend::new(vec![plain.address]).speaking_h2c(true));
    let by_port = Arc::new(Route { backend: by_port, settings: Arc::default(), secure: false });
    let proxy = Proxy::start(table(vec![
        ("", Matcher::prefix("/plain"), route(&[nobody().await, plain.address], grpc)),
        ("", Matcher::prefix("/secure"), route(&[secure.address], grpcs)),
        ("", Matcher::prefix("/port"), by_port),
    ]));
    let stream = connect(proxy.workers.https, "a.b", "h2").await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (path, scheme) in
        [("/plain", "http"), ("/secure", "https"), ("/port", "http"), ("/plain", "http"), ("/secure", "https")]
    {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("asked", "yes".parse().unwrap());
        let frames = [http_body::Frame::data(Bytes::from_static(b"hello")), http_body::Frame::trailers(trailers)];
        let body = StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Infallible>)));
        let request = Request::post(format!("https://a.b{path}")).header("te", "trailers").body(body).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let answer = answer.into_body().collect().await.unwrap();
        let trailers = answer.trailers().unwrap().clone();
        assert_eq!((&trailers["grpc-status"], &trailers["asked"]), (&"0".parse().unwrap(), &"yes".parse().unwrap()));
        let text = String::from_utf8(answer.to_bytes().to_vec()).unwrap();
        assert_eq!(text, format!("HTTP/2.0 {scheme}://a.b{path} te: trailers, hello"));
    }
    assert_eq!((plain.connections(), secure.connections()), (1, 1), "connections are shared");
}
