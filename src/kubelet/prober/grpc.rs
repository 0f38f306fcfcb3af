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
