//! The API server seen from outside: a real server on a free port with its own data directory, through kube's client.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod apply;
mod certificates;
mod custom_kinds;
mod custom_schemas;
mod deletes;
mod discovery;
mod front;
mod golden;
mod harness;
mod ingresses;
mod lists;
mod local;
mod objects;
mod odd_fields;
mod patches;
mod pod_security;
mod protobuf;
mod quotas;
mod rows;
mod services;
mod system;
mod tables;
mod watches;
mod wire;
