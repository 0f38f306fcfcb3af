//! Tokens of service accounts: the `token` subresource, and the keys that verify them.

use crate::{ApiServer, Body, Call};
use http::Response;
use mini_api::{Status, Value};

/// `POST serviceaccounts/x/token`: `request` is the decoded `TokenRequest`; the answer is the same with its status.
///
/// # Errors
/// As upstream's `TokenREST`.
pub async fn create(_call: &Call, _request: Value) -> Result<Value, Status> {
    Err(Status::new(mini_api::Reason::MethodNotAllowed, "tokens are not made yet"))
}

/// `/.well-known/openid-configuration` and `/openid/v1/jwks`.
#[must_use]
pub fn discovery(_server: &ApiServer, _path: &str) -> Option<Response<Body>> {
    None
}
