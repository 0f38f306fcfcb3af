//! exec, attach and port-forward: both ends are upgraded, then bytes go through untouched, whatever protocol they are.

use super::{Body, Refusal, upgrade_headers};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot reach containerd's stream: {error}"))
}

/// Connects `request` to containerd's one-time stream at `url`.
pub(super) async fn pass(mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, Refusal> {
    let uri: http::Uri = url.parse().map_err(failed)?;
    let authority = uri.authority().ok_or_else(|| failed("its address has no host"))?.to_string();
    let stream = TcpStream::connect(&authority).await.map_err(failed)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let mut onward = Request::builder()
        .method(request.method())
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(http::header::HOST, &authority)
        .body(Empty::<Bytes>::new())
        .map_err(failed)?;
    onward.headers_mut().extend(upgrade_headers(request.headers()));
    let answer = sender.send_request(onward).await.map_err(failed)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = answer.into_parts();
        head.headers.remove(http::header::CONNECTION);
        head.headers.remove(http::header::TRANSFER_ENCODING);
        return Ok(Response::from_parts(head, body.map_err(std::io::Error::other).boxed()));
    }
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = upgrade_headers(answer.headers());
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let outcome = async {
            let (client, backend) =
                tokio::try_join!(client, hyper::upgrade::on(answer)).map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        }
        .await;
        if let Err(error) = outcome {
            tracing::debug!(%error, "stream ended");
        }
    });
    Ok(response)
}
