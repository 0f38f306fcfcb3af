//! WebSockets on the client's side: the handshake, and a tunnel of bytes.

use super::upgrade::Failure;
use crate::authn::WEBSOCKET_TOKEN;
use crate::body::{Body, full};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use mini_api::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// SPDY frames inside binary messages: how kubectl 1.31 and later forwards ports.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The subprotocols that are offered, in order, without one that carries a token.
pub(super) fn protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    offered.filter(|p| !p.is_empty() && !p.starts_with(WEBSOCKET_TOKEN)).map(str::to_owned).collect()
}

/// The answer that opens the socket.
pub(super) fn accept(headers: &HeaderMap, protocol: &'static str) -> Result<Response<Body>, Status> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    let (Some(key), Some("13")) = (key, version.and_then(|v| v.to_str().ok())) else {
        return Err(Status::bad_request("not a WebSocket handshake of version 13"));
    };
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(response)
}

/// The server's side of an accepted socket.
pub(super) async fn socket(client: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(TokioIo::new(client), Role::Server, None).await
}

/// Copies the bytes of binary messages to `backend`, and its bytes back in binary messages.
pub(super) async fn tunnel(client: Upgraded, backend: Upgraded) -> Result<(), Failure> {
    let (mut sink, mut messages) = socket(client).await.split();
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(backend));
    let inward = async {
        while let Some(message) = messages.next().await {
            match message? {
                Message::Binary(bytes) => writer.write_all(&bytes).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        writer.shutdown().await?;
        Ok::<(), Failure>(())
    };
    let outward = async {
        let mut buffer = bytes::BytesMut::with_capacity(32 * 1024);
        while reader.read_buf(&mut buffer).await? > 0 {
            sink.send(Message::Binary(buffer.split().freeze())).await?;
            buffer.reserve(32 * 1024);
        }
        sink.send(Message::Close(None)).await?;
        Ok::<(), Failure>(())
    };
    // When one side is done, so is the stream: SPDY has its own way to half-close.
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_no_protocols() {
        let headers = HeaderMap::from_iter([(
            header::SEC_WEBSOCKET_PROTOCOL,
            format!("v5.channel.k8s.io, {WEBSOCKET_TOKEN}YWJj,v4.channel.k8s.io").parse().unwrap(),
        )]);
        assert_eq!(protocols(&headers), ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    }

    #[test]
    fn the_handshake_of_rfc_6455() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert!(accept(&headers, TUNNEL).is_err());
        headers.insert(header::SEC_WEBSOCKET_VERSION, "13".parse().unwrap());
        let response = accept(&headers, TUNNEL).unwrap();
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
