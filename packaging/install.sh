#!/bin/sh
# Installs mini from a folder that holds its executable: packaging/install.sh [EXECUTABLE]. As root.
# uninstall.sh takes everything away again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
executable=${1:-$here/../target/x86_64-unknown-linux-gnu/release/mini}
[ "$(id -u)" = 0 ] || { echo "install: run as root" >&2; exit 1; }
[ -x "$executable" ] || { echo "install: there is no executable $executable; build it with \`make build\`, or name it" >&2; exit 1; }
for program in containerd runc nft; do
    command -v "$program" >/dev/null || missing="${missing:-} $program"
done
if [ -n "${missing:-}" ]; then
    echo "install: missing:$missing (Debian and Ubuntu: apt-get install containerd runc nftables)" >&2
    exit 1
fi

install -D -m 755 "$executable" /usr/local/bin/mini
[ -e /etc/mini/config.yaml ] || install -D -m 644 "$here/config.yaml" /etc/mini/config.yaml
install -d /usr/local/share/man/man1 /usr/local/share/bash-completion/completions
/usr/local/bin/mini man >/usr/local/share/man/man1/mini.1
/usr/local/bin/mini completion bash >/usr/local/share/bash-completion/completions/mini
getent group mini >/dev/null || groupadd --system mini
if [ -d /run/systemd/system ]; then
    sed 's|/usr/bin/mini|/usr/local/bin/mini|' "$here/mini.service" >/etc/systemd/system/mini.service
    systemctl daemon-reload
    systemctl enable --quiet mini.service
    # An older server is replaced; its pods go on.
    systemctl try-restart mini.service
fi
echo "mini is installed; start it with: mini start"
