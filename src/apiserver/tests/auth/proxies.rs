//! What a proxied request takes along.
