//! Enables, disables and lists addons.
