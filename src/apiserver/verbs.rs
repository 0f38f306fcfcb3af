//! The verbs, one file each.

use crate::{Body, Call};
use http::{Request, Response};
use mini_api::{Reason, Status};

/// Carries out what was asked.
pub(crate) async fn dispatch(_call: Call, _request: Request<Body>) -> Result<Response<Body>, Status> {
    Err(Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource"))
}
