//! One client for every component: shared caches (reflectors), the work queue and the event recorder.
//!
//! Knows nothing of controllers or of the API server: a transport is any tower service that `kube::Client` takes.
//! Invariant: nothing here polls. An idle cluster costs no CPU.

pub mod cache;
pub mod caches;
pub mod host_ports;
pub mod node_selector;
pub mod queue;
pub mod recorder;
mod reflector;
pub mod requests;
pub mod taints;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod volumes;

pub use cache::{Cache, Change, Scope, Subscription};
pub use caches::Caches;
pub use kube::Client;
pub use queue::Queue;
pub use recorder::{EventType, Recorder, reference};
pub use reflector::{Sink, follow};
pub use tokio_util::sync::CancellationToken;
