//! Logs, exec and port-forward, through to a kubelet.

use crate::fake_kubelet;
use crate::harness::{As, Server, json};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Method;
use hyper_util::rt::TokioIo;
use serde_json::json as j;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const POD: &str = "/api/v1/namespaces/a/pods/p";

pub(crate) async fn server() -> Server {
    let server = Server::start().await;
    let port = fake_kubelet::start(&server.pki).await;
    server.create("/api/v1/namespaces", j!({"metadata": {"name": "a"}})).await;
    server.create("/api/v1/namespaces/a/serviceaccounts", j!({"metadata": {"name": "default"}})).await;
    server.create("/api/v1/nodes", j!({"metadata": {"name": "n1"}})).await;
    let (_, mut node) = server.call(server.admin(), "GET", "/api/v1/nodes/n1", None).await;
    node["status"] = j!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                         "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    assert_eq!(server.call(server.admin(), "PUT", "/api/v1/nodes/n1/status", Some(node)).await.0, 200);
    let pod = j!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}});
    server.create("/api/v1/namespaces/a/pods", pod).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_with_their_options() {
    let server = server().await;
    let get = async |query: &str| {
        json(server.send(server.admin(), Method::GET, &format!("{POD}/log?{query}"), &[], None).await).await
    };
    let (code, text) = get("tailLines=3&follow=true&timestamps=1&sinceSeconds=5").await;
    assert_eq!((code, text), (200, j!("/containerLogs/a/p/c?tailLines=3&sinceSeconds=5&follow=true&timestamps=true")));
    assert_eq!(get("tailLines=-1").await.0, 422);
    assert_eq!(get("container=nope").await.0, 400);
    let missing = server.call(server.admin(), "GET", "/api/v1/namespaces/a/pods/nope/log", None).await;
    assert_eq!((missing.0, &missing.1["message"]), (404, &j!("pods \"nope\" not found")));
    let (code, _) = server.call(server.node(), "GET", &format!("{POD}/log"), None).await;
    assert_eq!(code, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn spdy_passes_untouched() {
    let server = server().await;
    let headers =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
    let path = format!("{POD}/exec?command=cat&stdin=true&stdout=true");
    let answer = server.send(server.admin(), Method::POST, &path, &headers, None).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"any bytes at all").await.unwrap();
    let mut back = [0; 16];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"any bytes at all");
    // The kubelet's refusal is the client's to read.
    let path = format!("{POD}/exec?command=refuse&stdout=true");
    let (code, text) = json(server.send(server.admin(), Method::POST, &path, &headers, None).await).await;
    assert_eq!((code, text), (500, j!("container not running")));
    // Without an upgrade there is nothing to do, and whoever may not create gets nothing.
    assert_eq!(server.call(server.admin(), "POST", &path, None).await.0, 400);
    assert_eq!(json(server.send(As::Nobody, Method::POST, &path, &headers, None).await).await.0, 403);
}

async fn websocket(server: &Server, path: &str, protocol: &str) -> WebSocketStream<TlsStream<TcpStream>> {
    let mut request = format!("wss://{}{path}", server.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = server.connect(&server.admin()).await;
    let (socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_through_a_websocket() {
    let server = server().await;
    let mut socket = websocket(&server, &format!("{POD}/portforward"), "SPDY/3.1+portforward.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"spdy frames"))).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back.into_data(), Bytes::from_static(b"spdy frames"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_session_runs_over_spdy() {
    let server = server().await;
    let path = format!("{POD}/exec?command=session&stdin=true&stdout=true&stderr=true");
    let mut socket = websocket(&server, &path, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let mut said = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(bytes) => said.push(bytes),
            Message::Close(frame) => {
                assert_eq!(u16::from(frame.unwrap().code), 1000);
                break;
            }
            _ => {}
        }
    }
    let want: [&[u8]; 3] = [b"\x01", b"\x01hello", b"\x03{\"status\":\"Success\"}"];
    assert_eq!(said, want);
}
