//! Requests that pass through to a kubelet, pod or service: log, exec, attach, portforward, proxy.

use crate::{Body, Call};
use http::{Request, Response};
use mini_api::Status;

/// True for subresources that [`serve`] answers.
#[must_use]
pub fn is_stream(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

/// Carries the request on. `request` still has its body and, from the wire, hyper's `OnUpgrade`.
///
/// # Errors
/// The object does not exist, or the other side cannot be reached.
pub async fn serve(_call: &Call, _request: Request<Body>) -> Result<Response<Body>, Status> {
    Err(Status::new(mini_api::Reason::ServiceUnavailable, "streams are not served yet"))
}
