//! The three patches a client can send, as functions of two JSON documents.
//!
//! Errors are already [`Status`]: which code and reason a bad patch gets belongs to the patch format, not to HTTP.
//!
//! [`Status`]: crate::Status

pub mod json;
pub mod merge;
pub mod strategic;

use crate::status::{Reason, Status};

/// 422 as upstream's apiserver answers a patch that is well-formed but does not apply. Upstream hides why; the cause
/// tells it.
pub(crate) fn does_not_apply(why: impl Into<String>) -> Status {
    let mut status = Status::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    status.causes.push(crate::StatusCause {
        reason: "UnexpectedServerResponse".to_owned(),
        message: why.into(),
        field: "patch".to_owned(),
    });
    status
}
