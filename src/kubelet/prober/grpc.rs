//! `grpc.health.v1.Health/Check`, spoken by hand: one message each way.

use super::request::dial;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::time::Duration;

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

pub(super) async fn check(address: &str, service: &str, timeout: Duration) -> Result<(), String> {
    let late = || format!("timeout: failed to connect service \"{address}\" within {}s", timeout.as_secs());
    tokio::time::timeout(timeout, exchange(address, service, timeout)).await.unwrap_or_else(|_| Err(late()))
}

async fn exchange(address: &str, service: &str, timeout: Duration) -> Result<(), String> {
    let stream = dial(address, timeout).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let message = CheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::from(&[0u8][..]);
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::<Bytes>::new(frame.freeze()))
        .map_err(text)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await.map_err(text)?;
        let status = body.trailers().and_then(|t| t.get("grpc-status")).or_else(|| headers.get("grpc-status")).cloned();
        let bytes = body.to_bytes();
        if status.as_ref().is_some_and(|s| s != "0") {
            return Err(format!(
                "service unhealthy (grpc status {})",
                status.map_or_else(String::new, |s| s.to_str().unwrap_or("?").to_owned())
            ));
        }
        let response = CheckResponse::decode(bytes.get(5..).unwrap_or_default()).map_err(text)?;
        match response.status {
            SERVING => Ok(()),
            0 => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
            2 => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
            _ => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        }
    }
    .await;
    driver.abort();
    answer
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Response};
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use std::convert::Infallible;

    /// Answers as a health service: the service asked for is the status it tells.
    async fn answer(
        request: http::Request<Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        assert_eq!((request.uri().path(), request.method().as_str()), ("/grpc.health.v1.Health/Check", "POST"));
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let frame = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(frame[..5], [0, 0, 0, 0, u8::try_from(frame.len() - 5).unwrap()]);
        let asked = CheckRequest::decode(&frame[5..]).unwrap().service;
        let mut trailers = HeaderMap::new();
        let mut frames = Vec::new();
        match asked.parse::<i32>() {
            Ok(status) => {
                let message = CheckResponse { status }.encode_to_vec();
                let mut bytes = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
                bytes.extend(message);
                frames.push(Ok::<_, Infallible>(Frame::data(Bytes::from(bytes))));
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            }
            Err(_) if asked == "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
            Err(_) => {
                trailers.insert("grpc-status", http::HeaderValue::from_static("5"));
            }
        }
        frames.push(Ok(Frame::trailers(trailers)));
        Ok(Response::new(StreamBody::new(tokio_stream::iter(frames))))
    }

    #[test]
    fn a_health_service_is_asked_and_understood() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let service = hyper::service::service_fn(answer);
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
                }
            });
            let ask = |service: &'static str| check(&address, service, Duration::from_secs(1));
            assert_eq!(ask("1").await, Ok(()));
            assert_eq!(ask("2").await.unwrap_err(), "service unhealthy (responded with \"NOT_SERVING\")");
            assert_eq!(ask("unknown").await.unwrap_err(), "service unhealthy (grpc status 5)");
            assert!(ask("slow").await.unwrap_err().starts_with("timeout: failed to connect service"));
            let closed = check("127.0.0.1:1", "", Duration::from_secs(1)).await.unwrap_err();
            assert_eq!(closed, "dial tcp 127.0.0.1:1: connect: connection refused");
        });
    }
}
