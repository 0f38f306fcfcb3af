//! Requests and answers, connections that are used again, and backends that fail.

use super::*;

#[tokio::test]
async fn a_backend_is_told_of_the_client() {
    let echo = head_echo().await;
    let proxy = Proxy::to(echo.address);
    let answer = proxy
        .raw("GET /a//b?x=1 HTTP/1.1\r\nHost: A.b:81\r\nX-Forwarded-For: 10.9.9.9\r\nKeep-Alive: 5\r\nX-Own: 1\r\nConnection: close, x-drop\r\nX-Drop: 1\r\n\r\n")
        .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let wanted = "GET /a//b?x=1 HTTP/1.1\nhost: A.b:81\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: A.b:81\n\
                  x-forwarded-port: 80\nx-forwarded-proto: http\nx-forwarded-scheme: http\nx-own: 1\nx-real-ip: 127.0.0.1\n";
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn routes_redirects_and_pages() {
    let (echo, other) = (head_echo().await, word("other").await);
    let secure = Route { backend: Arc::default(), settings: Arc::new(Settings::default()), secure: true };
    let rewrite = Settings { rewrite: Some("/new/${1}".to_owned()), ..Settings::default() };
    let pattern = Matcher::Pattern(regex::Regex::new("^/old/(.*)").unwrap(), 9);
    let proxy = Proxy::start(table(vec![
        ("a.b", Matcher::prefix("/"), route(&[other.address], Settings::default())),
        ("a.b", pattern, route(&[echo.address], rewrite)),
        ("empty.b", Matcher::prefix("/"), route(&[], Settings::default())),
        ("dead.b", Matcher::prefix("/"), route(&[nobody().await], Settings::default())),
        ("s.b", Matcher::prefix("/"), Arc::new(secure)),
    ]));
    assert!(proxy.get("a.b", "/").await.ends_with("\r\n\r\nother"));
    assert!(proxy.get("a.b", "/old/x%20y?q").await.contains("GET /new/x%20y?q HTTP/1.1"));
    for (host, path, status) in [
        ("x.y", "/", "404 Not Found"),
        ("a.b", "/../x", "400 Bad Request"),
        ("empty.b", "/", "503 Service Unavailable"),
        ("dead.b", "/", "502 Bad Gateway"),
        ("s.b:80", "/p?q=1", "308 Permanent Redirect"),
        ("s.b", "/.well-known/mini-ingress", "200 OK"),
    ] {
        let answer = proxy.get(host, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        assert!(answer.contains(&format!("<h1>{status}</h1>")), "{host}: {answer}");
        assert_eq!(answer.contains("\r\nlocation: https://s.b:8443/p?q=1\r\n"), host == "s.b:80", "{answer}");
    }
}

#[tokio::test]
async fn connections_to_backends_are_kept() {
    let echo = head_echo().await;
    let proxy = Proxy::to(echo.address);
    let mut client = proxy.connect().await;
    for request in ["GET", "HEAD", "GET", "DELETE"] {
        client.write_all(format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        if request != "HEAD" {
            read_until(&mut client, "x-real-ip: 127.0.0.1\n").await;
        }
    }
    proxy.get("a", "/").await;
    assert_eq!(echo.connections(), 1);
}

/// Answers one request of each connection, then does what `after` says to the next one.
async fn fickle(answer_second: bool) -> Served {
    raw_backend(move |mut stream, number| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes()).await.unwrap();
        if answer_second {
            // Takes the second request, and breaks off.
            let _ = stream.read_u8().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_broke_is_replaced() {
    for reads_second in [false, true] {
        let fickle = fickle(reads_second).await;
        let proxy = Proxy::to(fickle.address);
        for number in 0..3 {
            let answer = proxy.get("a", "/").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("\r\n\r\n{number}")), "{answer}");
        }
        assert_eq!(fickle.connections(), 3);
    }
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let fickle = fickle(true).await;
    let proxy = Proxy::to(fickle.address);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    proxy.get("a", "/").await;
    let answer = proxy.raw(post).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(fickle.connections(), 1);
}

#[tokio::test]
async fn another_endpoint_is_tried_when_one_cannot_be_reached() {
    let (dead, alive) = (nobody().await, word("alive").await);
    let both = route(&[dead, alive.address], Settings::default());
    let proxy = Proxy::start(table(vec![("", Matcher::prefix("/"), both)]));
    for _ in 0..4 {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        assert!(proxy.raw(post).await.ends_with("alive"));
    }
}

#[tokio::test]
async fn a_silent_backend_is_given_up() {
    let silent = raw_backend(|mut stream, _| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let brief = Settings { silence: Duration::from_millis(200), ..Settings::default() };
    let proxy = Proxy::start(table(vec![("", Matcher::prefix("/"), route(&[silent.address], brief))]));
    assert!(proxy.get("a", "/").await.starts_with("HTTP/1.1 504 Gateway Timeout"));
}

#[tokio::test]
async fn a_new_table_drops_no_connection() {
    let (old, new) = (word("old").await, word("new").await);
    let proxy = Proxy::to(old.address);
    let mut client = proxy.connect().await;
    for (table, wanted) in [(None, "old"), (Some(one(new.address)), "new"), (Some(Table::default()), "</html>\n")] {
        if let Some(table) = table {
            proxy.live.store(table);
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_until(&mut client, wanted).await;
    }
}

#[tokio::test]
async fn a_request_under_way_ends_before_the_server_does() {
    let slow = backend(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Response::new(Full::new(Bytes::from_static(b"done")))
    })
    .await;
    let proxy = Proxy::to(slow.address);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.cancel.cancel();
    };
    let (answer, ()) = tokio::join!(proxy.get("a", "/"), cancel);
    assert!(answer.ends_with("done"), "{answer}");
    assert!(TcpStream::connect(proxy.workers.http).await.is_err());
}
