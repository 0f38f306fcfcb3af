//! `pods/log`: the kubelet's answer, as it comes.

use super::{container, encode, kubelet};
use crate::Call;
use crate::body::{Body, full};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use mini_api::{FieldError, FieldPath, Meta, Reason, Status};

/// As much of a kubelet's complaint as is passed on.
const COMPLAINT: usize = 16 * 1024;

pub(super) async fn serve(call: &Call) -> Result<Response<Body>, Status> {
    let pod = super::pod(call)?;
    let container = container(&pod, call.query.text("container"))?;
    let query = query(call)?;
    let node = pod.text(&["spec", "nodeName"]);
    if node.is_empty() {
        // Not scheduled: nothing has been said yet.
        return Ok(text(full("")));
    }
    let endpoint = kubelet::Endpoint::of(&call.server, node)?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{query}");
    let answer = call.server.kubelets.call(endpoint, Method::GET, &path, HeaderMap::new()).await?;
    if answer.status() != StatusCode::OK {
        return Err(complaint(call, answer).await);
    }
    Ok(text(answer.into_body().map_err(Into::into).boxed_unsync()))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The kubelet's failure in the words of a Status.
async fn complaint(call: &Call, answer: Response<Incoming>) -> Status {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), COMPLAINT).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_else(|_| Bytes::new());
    let said = String::from_utf8_lossy(&body).trim().to_owned();
    match code {
        StatusCode::BAD_REQUEST => Status::bad_request(said),
        StatusCode::NOT_FOUND => {
            let mut status = Status::not_found("", "pods", &call.info.name);
            status.message =
                format!("the server could not find the requested resource ( pods/log {}): {said}", call.info.name);
            status
        }
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(said),
        _ => {
            let mut status = Status::new(Reason::Unknown, said);
            status.code = code.as_u16();
            status
        }
    }
}

/// The options, checked and in the kubelet's words.
fn query(call: &Call) -> Result<String, Status> {
    let asked = &call.query;
    let mut query: Vec<String> = Vec::new();
    let mut errors = Vec::new();
    let path = |name: &str| FieldPath::new(name);
    for (name, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(number) = asked.number(name)? {
            if number < least {
                errors.push(FieldError::invalid(&path(name), number, why));
            }
            query.push(format!("{name}={number}"));
        }
    }
    if let Some(time) = asked.get("sinceTime").filter(|t| !t.is_empty()) {
        if mini_api::time::parse(time).is_err() {
            return Err(Status::bad_request(format!("parsing time {time:?} as RFC 3339 failed")));
        }
        if asked.get("sinceSeconds").is_some_and(|s| !s.is_empty()) {
            let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&FieldPath::new(""), why));
        }
        query.push(format!("sinceTime={}", encode(time)));
    }
    for name in ["follow", "previous", "timestamps"] {
        if asked.flag(name) {
            query.push(format!("{name}=true"));
        }
    }
    if let Some(stream) = asked.get("stream").filter(|s| !s.is_empty()) {
        query.push(format!("stream={}", encode(stream)));
    }
    if errors.is_empty() {
        return Ok(query.join("&"));
    }
    Err(Status::invalid("", "PodLogOptions", &call.info.name, &errors))
}
