//! Who may do what, and streams to a kubelet, against a server that listens on a port of its own.

mod access;
mod fake_kubelet;
mod harness;
mod streams;
