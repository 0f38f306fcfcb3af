//! Requests that two readers could understand differently.

use super::*;

/// A backend that answers each request with its number on the connection, and keeps what it read.
async fn recorder() -> (Served, Arc<parking_lot::Mutex<String>>) {
    let seen: Arc<parking_lot::Mutex<String>> = Arc::default();
    let record = seen.clone();
    let served = raw_backend(move |mut stream, _| {
        let record = record.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                record.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (served, seen)
}

#[tokio::test]
async fn what_is_ambiguous_is_refused() {
    let (served, seen) = recorder().await;
    let proxy = Proxy::to(served.address);
    for headers in [
        "Host: a\r\nHost: b\r\n",
        "Accept: x\r\n",
        "Host: a@b\r\n",
        "Host: a b\r\n",
        "Host: a\r\nTransfer-Encoding: xchunked\r\n",
        "Host: a\r\nTransfer-Encoding: chunked, identity\r\n",
        "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "Host: a\r\nContent-Length: +1\r\n",
        "Host: a\r\nContent-Length : 1\r\n",
        "Host: a\r\nX: 1\r\n folded\r\n",
        "Host: a\r\nX: a\0b\r\n",
    ] {
        let answer = proxy.raw(&format!("POST / HTTP/1.1\r\n{headers}Connection: close\r\n\r\nab")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers:?}: {answer}");
    }
    let old = proxy.raw("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 400") || old.starts_with("HTTP/1.0 400"), "{old}");
    assert_eq!(*seen.lock(), "");
}

#[tokio::test]
async fn a_length_beside_chunks_smuggles_nothing() {
    let (served, seen) = recorder().await;
    let proxy = Proxy::to(served.address);
    for order in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"]
    {
        seen.lock().clear();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        // The connection is closed after the first answer, whatever follows it.
        let answer = proxy.raw(&format!("POST / HTTP/1.1\r\nHost: a\r\n{order}\r\n0\r\n\r\n{smuggled}")).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let seen = seen.lock().to_lowercase();
        assert!(!seen.contains("smuggled") && !seen.contains("content-length: 6"), "{seen}");
    }
}

#[tokio::test]
async fn one_body_ends_where_its_length_says() {
    let (served, seen) = recorder().await;
    let proxy = Proxy::to(served.address);
    let first = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let second = "GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = proxy.raw(&format!("{first}{second}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    let seen = seen.lock().clone();
    assert!(seen.contains("\r\n\r\nabcGET /2 HTTP/1.1\r\n") || seen.contains("\r\n\r\nabc"), "{seen}");
    assert!(!seen.contains("abcG\r\n"), "{seen}");
}

#[tokio::test]
async fn a_request_line_with_a_host_overrides_the_header() {
    let echo = head_echo().await;
    let proxy =
        Proxy::start(table(vec![("in.line", Matcher::prefix("/"), route(&[echo.address], Settings::default()))]));
    let answer = proxy.raw("GET http://in.line/x HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("GET /x HTTP/1.1\nhost: in.line\n"), "{answer}");
    let connect = proxy.raw("CONNECT in.line:443 HTTP/1.1\r\nHost: in.line:443\r\nConnection: close\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 405"), "{connect}");
}
