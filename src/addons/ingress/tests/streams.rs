//! Bodies that stream, and connections that become tunnels.

use super::*;
use http_body_util::BodyExt;

#[tokio::test]
async fn bodies_stream_both_ways() {
    let echo = backend(|request| async move { Response::new(request.into_body()) }).await;
    let proxy = Proxy::to(echo.address);
    let mut client = proxy.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    for word in ["one", "two"] {
        client.write_all(format!("3\r\n{word}\r\n").as_bytes()).await.unwrap();
        // It comes back while the request is still being sent.
        read_until(&mut client, &format!("3\r\n{word}\r\n")).await;
    }
    client.write_all(b"0\r\n\r\n").await.unwrap();
    read_until(&mut client, "0\r\n\r\n").await;
}

#[tokio::test]
async fn big_bodies_pass_whole() {
    const SIZE: usize = 32 << 20;
    let counter = backend(|request| async move {
        let length = request.headers().get("content-length").cloned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let good = body.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8);
        assert!(good && length.is_some(), "the body was changed");
        Response::new(Full::new(body))
    })
    .await;
    let proxy = Proxy::to(counter.address);
    let body: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let (mut read, mut write) = proxy.connect().await.into_split();
    let sent = body.clone();
    tokio::spawn(async move {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        std::future::pending::<()>().await;
    });
    let head = read_until(&mut read, "\r\n\r\n").await;
    assert!(head.contains(&format!("content-length: {SIZE}\r\n")), "{head}");
    let mut back = vec![0; SIZE];
    read.read_exact(&mut back).await.unwrap();
    assert!(back == body, "the answer was changed");
}

#[tokio::test]
async fn a_client_that_waits_for_leave_gets_it() {
    let echo = backend(|request| async move { Response::new(request.into_body()) }).await;
    let proxy = Proxy::to(echo.address);
    let mut client = proxy.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hi").await.unwrap();
    read_until(&mut client, "\r\n\r\nhi").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let broken = raw_backend(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let answer = Proxy::to(broken.address).get("a", "/").await;
    assert!(answer.contains("3\r\nabc\r\n") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// Accepts any upgrade and echoes what comes.
async fn upgrader() -> Served {
    raw_backend(|mut stream, _| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        if !head.contains("\r\nupgrade: websocket\r\n") || !head.contains("\r\nconnection: upgrade\r\n") {
            let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            let _ = stream.write_all(plain.as_bytes()).await;
            return;
        }
        let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello";
        let _ = stream.write_all(accept.as_bytes()).await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

#[tokio::test]
async fn websockets_pass() {
    let upgrader = upgrader().await;
    let proxy = Proxy::to(upgrader.address);
    let mut client = proxy.connect().await;
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\nhello").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: x"] {
        assert!(answer.contains(&format!("\r\n{line}\r\n")), "{line}: {answer}");
    }
    client.write_all(b"ping").await.unwrap();
    read_until(&mut client, "ping").await;
    // A change of routes does not touch it.
    proxy.live.store(Table::default());
    client.write_all(b"pong").await.unwrap();
    read_until(&mut client, "pong").await;
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn cleartext_http2_is_no_way_around_the_routes() {
    let upgrader = upgrader().await;
    let proxy = Proxy::to(upgrader.address);
    let mut client = proxy.connect().await;
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut client, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = read_until(&mut client, "\r\n\r\n").await;
    assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
}
