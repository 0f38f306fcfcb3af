//! Who may do what, and streams to a kubelet, against a server that listens on a port of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access;
mod audit;
mod fairness;
mod fake_kubelet;
mod harness;
mod issuer;
mod nodes;
mod proxy;
mod requests;
mod roles;
mod streams;
mod usage;
