//! Hooks of the kinds that differ from the generic rules of `resource.rs`; one file for each kind or family.
