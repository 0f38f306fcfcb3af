//! `/containerLogs`: which log, from where, and in what form.

use super::{Body, Query, Refusal, containers, text};
use crate::agent::Agent;
use crate::logs::{Options, Reader};
use crate::pod;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_cri::v1::ContainerState as Cri;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

const BAD: StatusCode = StatusCode::BAD_REQUEST;
/// Between looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn answer(agent: &Agent, pod: &Pod, name: &str, query: &Query) -> Result<Response<Body>, Refusal> {
    let pod_name = pod::name(pod);
    if pod::find_container(pod, name).is_none() {
        return Err(Refusal(BAD, format!("container {name} is not valid for pod {pod_name}")));
    }
    let options = options(query)?;
    let mut all = containers(agent, pod, name).await?;
    all.retain(|c| c.state != i32::from(Cri::ContainerCreated));
    let previous = query.on(&["previous"]);
    let wanted = if previous {
        // While a crashed container waits for its next start, the newest dead one is the previous.
        let waiting = state_of(pod, name).is_some_and(|state| state.waiting.is_some());
        let dead = all.first().is_some_and(|c| c.state == i32::from(Cri::ContainerExited));
        all.into_iter().nth(usize::from(!(waiting && dead))).ok_or_else(|| {
            Refusal(BAD, format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found"))
        })?
    } else {
        all.into_iter().next().ok_or_else(|| {
            let why = waiting_reason(pod, name);
            Refusal(BAD, format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {why}"))
        })?
    };
    let runtime = agent.shared().runtime.clone();
    let status = runtime
        .container_status(&wanted.id)
        .await
        .map_err(|s| Refusal(StatusCode::INTERNAL_SERVER_ERROR, s.message().to_owned()))?;
    let path = PathBuf::from(&status.log_path);
    let follow = query.on(&["follow"]) && !previous;
    let mut reader = match Reader::open(path, options) {
        Ok(reader) => reader,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !follow => return Ok(text(StatusCode::OK, "")),
        Err(e) => return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the log: {e}"))),
    };
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(4);
    let id = wanted.id;
    tokio::spawn(async move {
        let running = i32::from(Cri::ContainerRunning);
        let mut alive = follow;
        let mut quiet = 0u32;
        loop {
            let (back, read) = match tokio::task::spawn_blocking(move || {
                let read = reader.read();
                (reader, read)
            })
            .await
            {
                Ok(done) => done,
                Err(_) => return,
            };
            reader = back;
            match read {
                Ok(bytes) if !bytes.is_empty() => {
                    quiet = 0;
                    if sender.send(Ok(Frame::data(Bytes::from(bytes)))).await.is_err() {
                        return;
                    }
                }
                Ok(_) if reader.is_done() || !alive => return,
                Ok(_) => {
                    quiet += 1;
                    tokio::select! {
                        () = sender.closed() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                    // One more read after the container's end takes what came with it.
                    if quiet % 5 == 1 {
                        alive = runtime.container_status(&id).await.is_ok_and(|s| s.state == running);
                    }
                }
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
        }
    });
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let mut response = Response::new(BodyExt::boxed(body));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// What the API says of a container.
fn state_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerState> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|s| s.name == name)?.state.as_ref()
}

/// Why there is no log yet, in the words of upstream's kubelet.
fn waiting_reason(pod: &Pod, name: &str) -> String {
    state_of(pod, name)
        .and_then(|state| state.waiting.as_ref()?.reason.clone())
        .map(|reason| match reason.as_str() {
            "ErrImagePull" => "image can't be pulled".to_owned(),
            "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
            _ => reason,
        })
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}

fn options(query: &Query) -> Result<Options, Refusal> {
    let number = |name: &str| -> Result<Option<u64>, Refusal> {
        query.get(name).map(|v| v.parse().map_err(|_| Refusal(BAD, format!("invalid {name}: \"{v}\"")))).transpose()
    };
    let mut since = None;
    if let Some(time) = query.get("sinceTime") {
        since = Some(time.parse().map_err(|_| Refusal(BAD, format!("invalid sinceTime: \"{time}\"")))?);
    }
    if let Some(seconds) = number("sinceSeconds")? {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 4);
        since = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok();
    }
    Ok(Options {
        tail: number("tailLines")?,
        limit: number("limitBytes")?,
        since,
        timestamps: query.on(&["timestamps"]),
        stream: query.get("stream").filter(|s| *s != "All").map(str::to_lowercase),
    })
}
