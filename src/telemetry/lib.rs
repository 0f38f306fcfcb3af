//! What components tell people: log set-up and the health board behind `mini status`.
//!
//! Knows no component. Invariant: a component that is not ready always says what it waits for.

pub mod health;
pub mod logs;

pub use health::{Component, ComponentStatus, Health, State};
