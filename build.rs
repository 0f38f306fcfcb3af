//! Two flags for the linker (LLD, which is Rust's own on this target): equal functions are kept once, and the addresses
//! that a start relocates are listed in their short form.

fn main() {
    for flag in ["--icf=all", "-z,pack-relative-relocs"] {
        println!("cargo:rustc-link-arg-bins=-Wl,{flag}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
