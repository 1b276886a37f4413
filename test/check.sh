#!/bin/sh
# npm run check: format, lint, types, clippy, then npm test. Every step runs, so that one run tells all that is wrong.
set -eu
cd "$(dirname "$0")/.."
sh test/build.sh
PATH=$PWD/node_modules/.bin:$PATH
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH
CHECKS_FAILED=0

# NAME COMMAND…
check() {
  name=$1
  shift
  echo "check: $name"
  "$@" || {
    echo "check: $name FAILED: $*" >&2
    CHECKS_FAILED=$((CHECKS_FAILED + 1))
  }
}

check 'format and lint' biome ci --error-on-warnings .
check 'types' tsc -p .
check 'format of Rust' cargo fmt --check --manifest-path native/Cargo.toml
check 'clippy' cargo clippy --quiet --all-targets --manifest-path native/Cargo.toml -- -D warnings
export CHECKS_FAILED
sh test/run.sh
