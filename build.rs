//! Two flags for the linker (LLD, which is Rust's own on this target): equal functions are kept once, and the addresses
//! that a start relocates are listed in their short form.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    if libc_reads_short_relocations() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// glibc does from 2.36 on. An older one, linked in, would start without having relocated anything.
fn libc_reads_short_relocations() -> bool {
    let Ok(said) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let said = String::from_utf8_lossy(&said.stdout);
    let Some((major, minor)) = said.trim().rsplit(' ').next().and_then(|version| version.split_once('.')) else {
        return false;
    };
    matches!((major.parse::<u32>(), minor.parse::<u32>()), (Ok(major), Ok(minor)) if (major, minor) >= (2, 36))
}
