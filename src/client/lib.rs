//! One client for every component: transports, shared caches (reflectors) and the work queue.
//!
//! Knows nothing of controllers or of the API server: a transport is any tower service that `kube::Client` takes.

pub use kube::Client;
pub use tokio_util::sync::CancellationToken;
