//! The table of served kinds: one row for each, and hooks only where a kind differs from the others.
//!
//! Owns what a kind *is* (names, scope, schema, defaults, validation, printed columns); knows nothing of storage, HTTP
//! or tokio. Its one invariant: everything about a kind is reached through its [`Resource`].

mod check;
mod columns;
pub mod custom;
pub mod defaults;
#[cfg(test)]
mod fuzz;
mod kinds;
mod metadata;
mod normalize;
pub mod openapi;
pub mod protobuf;
mod registry;
mod resource;
mod schema;
mod table;

pub use columns::{Column, SCALE, human_duration, scale_cells};
pub use kinds::flow::bootstrap_flow;
pub use kinds::pod::qos_class;
pub use mini_api::duplicates::{duplicate_fields, odd_fields};
pub use registry::{Group, Registry};
pub use resource::{Hooks, Resource, Subresource};
pub use schema::ApplyNode;
