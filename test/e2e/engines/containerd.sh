#!/bin/sh
# containerd.sh [trixie|sid]: unpacks Debian's containerd of a later release than this one, once, and prints the directory of its programs,
# which run here as they are. Root only; a few seconds.
set -eu
home=${LAZYLAYER_TEST_CACHE:-/var/cache/lazylayer-test}
suite=${1:-trixie}
root=$home/containerd-$suite-1
mkdir -p "$home"
exec 9>"$home/containerd-lock"
flock 9
if [ ! -e "$root" ]; then
  mirror=$(sed -n 's/^URIs: *\([^ ]*\/debian\/*\)$/\1/p; s/^deb \(\[[^]]*\] \)*\([^ ]*\/debian\/*\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
  making=$(mktemp -d "$home/making-containerd.XXXXXX")
  trap 'rm -rf "$making"' EXIT
  mkdir -p "$making/apt/lists/partial" "$making/apt/archives/partial" "$making/root"
  echo "deb ${mirror:-http://deb.debian.org/debian} $suite main" >"$making/apt/sources.list"
  apt() {
    apt-get -q -o "Dir::Etc::sourcelist=$making/apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State=$making/apt" \
      -o "Dir::Cache=$making/apt" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root "$@" >>"$making/log" 2>&1
  }
  if ! { apt update && cd "$making" && apt download containerd && dpkg -x containerd_*.deb root; }; then
    tail -n 15 "$making/log" >&2
    echo "containerd of $suite cannot be had" >&2
    exit 1
  fi
  chmod 755 root
  mv root "$root"
fi
echo "$root/usr/bin"
