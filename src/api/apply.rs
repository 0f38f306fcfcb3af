//! Server-side apply: who manages which fields of an object, and what an applied configuration makes of it.
//!
//! Follows structured-merge-diff. [`set`] is the algebra of field sets, [`fields_v1`] their form in JSON,
//! [`typed`] walks values along a schema (validation, field sets, comparison), [`merge`] and [`remove`] make new values,
//! [`managers`] is `metadata.managedFields`, and [`update`] is what an update or an apply does to it. What a kind's types
//! look like comes in through [`ApplySchema`].

pub mod element;
pub mod fields_v1;
pub mod managers;
pub mod merge;
pub mod remove;
pub mod schema;
pub mod set;
pub mod typed;
pub mod update;

#[cfg(test)]
mod tests;

pub use element::Element;
pub use managers::{Entry, Managers, Operation};
pub use schema::{ApplySchema, Child, Node, Scalar};
pub use set::Set;
pub use update::{Applied, Context, Failure, Versions};
