//! Placeholder: generates OpenAPI definitions.
fn main() {}
