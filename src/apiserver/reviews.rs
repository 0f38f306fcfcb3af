//! The kinds that are asked and never stored: TokenReview, the SubjectAccessReview family, SelfSubjectReview.

use crate::Call;
use mini_api::{Status, Value};

/// True if objects of this resource are answered by [`create`] instead of being stored.
#[must_use]
pub fn is_review(group: &str) -> bool {
    matches!(group, "authentication.k8s.io" | "authorization.k8s.io")
}

/// Fills the status of `object`, which is normalized, defaulted and validated.
///
/// # Errors
/// The review cannot be answered.
pub async fn create(_call: &Call, _object: Value) -> Result<Value, Status> {
    Err(Status::new(mini_api::Reason::MethodNotAllowed, "reviews are not answered yet"))
}
