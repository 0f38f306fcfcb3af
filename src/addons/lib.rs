//! Addons: the engine that enables and disables them, and the servers that run inside their pods.
//!
//! Knows the cluster only through the API. An addon's manifests and description are data, in `addons/<name>/` at the top
//! of the repository; here is code. Invariant: enabling is idempotent, disabling removes exactly what enabling made, and
//! nothing is ever pulled: addon pods run this very executable.

pub mod dashboard;
pub mod dns;
pub mod engine;
pub mod ingress;
