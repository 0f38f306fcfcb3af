#!/usr/bin/env bash
# Makes target/debian/mini_*.deb from an executable that is built already: scripts/package.sh [EXECUTABLE [OPTION-OF-CARGO-DEB]…]
# Manual page and completions come from the executable's own definitions.
set -euo pipefail
cd "$(dirname "$0")/.."

executable=${1:-target/x86_64-unknown-linux-gnu/release/mini}
parts=target/package
rm -rf "$parts" && mkdir -p "$parts"
install -m 755 "$executable" "$parts/mini"
"$parts/mini" man | gzip -9n >"$parts/mini.1.gz"
for shell in bash zsh fish; do "$parts/mini" completion "$shell" >"$parts/completion.$shell"; done
gzip -9nc CHANGELOG.md >"$parts/changelog.gz"
scripts/setup.sh package

# A manifest of its own: the packer from PyPI does not read the workspace's.
version=$("$parts/mini" version --format short)
{
    printf '[workspace]\n[package]\nname = "mini"\nversion = "%s"\nedition = "2021"\n' "$version"
    printf 'license = "Apache-2.0"\ndescription = "An embedded single-node Kubernetes in one executable"\n'
    printf '[[bin]]\nname = "mini"\npath = "none.rs"\n'
    cat packaging/deb.toml
} >"$parts/Cargo.toml"
touch "$parts/none.rs"
target/tools/bin/cargo-deb --quiet --no-build --no-strip --manifest-path "$parts/Cargo.toml" --output target/debian/ "${@:2}"
ls target/debian/mini_*.deb
