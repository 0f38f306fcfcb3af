//! What is counted and what is bounded.
