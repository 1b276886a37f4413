#!/bin/sh
# npm test: builds what is stale, then runs every test there is: units, properties and end-to-end by vitest, Rust by cargo. What cannot
# run here is named with the reason. The last line counts all of them. With arguments, only vitest with these.
set -eu
cd "$(dirname "$0")/.."
sh test/build.sh
PATH=$PWD/node_modules/.bin:$PATH
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
failed=${CHECKS_FAILED:-0} # by test/check.sh
passed=0
skipped=0

# PASSED FAILED SKIPPED
count() {
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

status=0
LAZYLAYER_COUNTS=$made/vitest vitest run "$@" || status=$?
if [ -s "$made/vitest" ]; then count $(cat "$made/vitest"); fi
# A run that failed without a failed test: it did not start, or ended early.
if [ "$status" -ne 0 ] && [ "$failed" -eq "${CHECKS_FAILED:-0}" ]; then count 0 1 0; fi

if [ $# -eq 0 ]; then
  status=0
  cargo test --manifest-path native/Cargo.toml >"$made/cargo" 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then cat "$made/cargo"; fi
  # test slots::grows ... ignored, needs root
  sed -n 's/^test \(.*\) \.\.\. ignored\(, \(.*\)\)*$/skipped: native: \1 (\3)/p' "$made/cargo"
  # test result: ok. 3 passed; 0 failed; 1 ignored; …
  rust=$(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$made/cargo")
  set -- $rust
  if [ "$status" -ne 0 ] && [ "$2" -eq 0 ]; then set -- "$1" 1 "$3"; fi # it did not compile
  echo "native: $1 tests passed, $2 failed, $3 ignored"
  count "$@"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
