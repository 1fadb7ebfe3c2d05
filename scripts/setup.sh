#!/usr/bin/env bash
# Everything that a fresh Debian 12 machine lacks: packages, node modules, the build. Does nothing where nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(qemu-system-x86 qemu-utils openvswitch-switch openssh-server openssh-client iproute2 g++ make python3 cpio zstd xz-utils tini libc6-dev kmod libzstd-dev)
# What only tests and benches need.
packages+=(rabbitmq-server openssl xfsprogs)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  [ "$(id -u)" = 0 ] || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Staghorn's lab starts its own sshd and Open vSwitch, its tests a broker; the machine's own must not start because of this.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo 'installing node modules' >&2
  npm ci --prefer-offline --loglevel=error
  touch node_modules/.package-lock.json
fi

bash scripts/build.sh
