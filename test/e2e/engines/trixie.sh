#!/bin/sh
# trixie.sh [trixie|sid|user]: makes a Debian root that holds Podman and runc, once, and prints its path: Debian 13 with Podman 5.4,
# Buildah and Skopeo; unstable with what is newest; or that Debian 13 as a user of lazylayer has it, with Debian's own Node and what plain
# users need. Root only; about a minute the first time.
# It is made beside its place and renamed, under a lock, so that an interrupted or a second run never shows a half-made one.
set -eu
home=${LAZYLAYER_TEST_CACHE:-/var/cache/lazylayer-test}
# The name carries what is in it: a change of the packages makes a new root.
packages="podman runc ca-certificates"
suite=${1:-trixie}
case $suite in
trixie) packages="$packages buildah skopeo" root=$home/trixie-2 ;;
user) base=$(sh "$0" trixie) packages="nodejs fuse3 uidmap" root=$home/user-1 ;;
*) root=$home/$suite-1 ;;
esac

mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ ! -e "$root" ]; then
  mirror=$(sed -n 's/^URIs: *\([^ ]*\/debian\/*\)$/\1/p; s/^deb \(\[[^]]*\] \)*\([^ ]*\/debian\/*\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
  mirror=${mirror:-http://deb.debian.org/debian}
  rm -rf "$home"/making.*
  making=$(mktemp -d "$home/making.XXXXXX")
  log=$home/$suite.log
  fail() {
    tail -n 15 "$log" >&2
    echo "$suite: $1 failed (whole log: $log)" >&2
    rm -rf "$making"
    exit 1
  }
  echo "$suite: making a Debian root with Podman in $root (once, about a minute)" >&2
  if [ -n "${base-}" ]; then
    cp -a --reflink=auto "$base/." "$making"
    chroot "$making" apt-get update >"$log" 2>&1 || fail 'apt-get update'
  else
    debootstrap --variant=minbase "$suite" "$making" "$mirror" >"$log" 2>&1 || fail debootstrap
  fi
  # No service may start from inside, and apt must reach what the host's apt reaches.
  printf '#!/bin/sh\nexit 101\n' >"$making/usr/sbin/policy-rc.d"
  chmod 755 "$making/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf "$making/etc/resolv.conf"
  for proxy in $(grep -lis proxy /etc/apt/apt.conf /etc/apt/apt.conf.d/*); do cp "$proxy" "$making/etc/apt/apt.conf.d/"; done
  DEBIAN_FRONTEND=noninteractive chroot "$making" apt-get install -y --no-install-recommends $packages </dev/null >>"$log" 2>&1 ||
    fail "apt-get install $packages"
  rm -rf "$making"/var/cache/apt/archives/*.deb "$making"/var/lib/apt/lists/*
  chmod 755 "$making"
  mv "$making" "$root"
fi
echo "$root"
