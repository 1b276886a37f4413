#!/bin/sh
# npm run check: format, lint, types, clippy, merges and the build, side by side, then npm test. Every step runs, so that one run tells all that is
# wrong. With TESTS_WAIT, tests wait for a line on standard input, which says that what they need is installed.
set -eu
cd "$(dirname "$0")/.."
sh test/build.sh packages </dev/null
PATH=$PWD/node_modules/.bin:$PATH
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# NAME COMMAND…: failed until it has passed
check() {
  name=$1
  shift
  {
    echo "check: $name"
    if "$@"; then touch "$made/$name.passed"; else echo "check: $name FAILED: $*"; fi
  } >"$made/$name.said" 2>&1
  cat "$made/$name.said"
}

check 'format and lint' biome ci --error-on-warnings . &
check 'types' tsc -p . &
check 'no unfinished merge' sh -c '! git grep -nE "^(<{7}|>{7}) "' &
check 'format of Rust' cargo fmt --check --manifest-path native/Cargo.toml &
check 'clippy' cargo clippy --quiet --all-targets --manifest-path native/Cargo.toml -- -D warnings &
sh test/build.sh </dev/null
wait
FAILED_CHECKS=$made/failed
export FAILED_CHECKS
for said in "$made"/*.said; do
  name=$(basename "$said" .said)
  [ -e "$made/$name.passed" ] || echo "failed: check: $name"
done >"$FAILED_CHECKS"
if [ -n "${TESTS_WAIT-}" ]; then read -r _; fi
sh test/run.sh </dev/null
