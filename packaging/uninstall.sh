#!/bin/sh
# Takes off what install.sh installed, and the cluster with it. As root.
set -eu
[ "$(id -u)" = 0 ] || { echo "uninstall: run as root" >&2; exit 1; }
if [ -x /usr/local/bin/mini ]; then
    /usr/local/bin/mini reset --yes
fi
if [ -d /run/systemd/system ]; then
    systemctl disable --quiet mini.service 2>/dev/null || true
fi
rm -f /etc/systemd/system/mini.service /usr/local/bin/mini /usr/local/share/man/man1/mini.1 \
    /usr/local/share/bash-completion/completions/mini
# Made by the installation, unless others use them.
rmdir /usr/local/share/bash-completion/completions /usr/local/share/bash-completion /usr/local/share/man/man1 2>/dev/null || true
rm -rf /etc/mini
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
if getent group mini >/dev/null; then groupdel mini; fi
echo "mini is uninstalled"
