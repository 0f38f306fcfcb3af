//! The API server seen from outside: a real server on a free port with its own data directory, through kube's client.

mod deletes;
mod discovery;
mod harness;
mod lists;
mod local;
mod objects;
mod patches;
mod rows;
mod services;
mod watches;
mod wire;
