#!/bin/sh
# npm test: builds what is stale, then runs every test there is: units, properties and end-to-end by vitest, Rust by cargo. What cannot
# run here is named with the reason. The last line counts all of them. With arguments, only vitest with these.
#
# End-to-end tests wait, much of their time. Units, and then Rust, compute meanwhile; what they say is printed when they have ended.
set -eu
cd "$(dirname "$0")/.."
sh test/build.sh
PATH=$PWD/node_modules/.bin:$PATH
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH
made=$(mktemp -d)
side=
trap '[ -z "$side" ] || kill "$side" 2>/dev/null || :; rm -rf "$made"' EXIT
trap 'exit 130' INT TERM
failed=${CHECKS_FAILED:-0} # by test/check.sh
passed=0
skipped=0

# PASSED FAILED SKIPPED
count() {
  passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# NAME ARGUMENT…: vitest, its counts in $made/NAME
run_vitest() {
  name=$1
  shift
  status=0
  LAZYLAYER_COUNTS=$made/$name vitest run "$@" || status=$?
  [ -s "$made/$name" ] || echo 0 0 0 >"$made/$name"
  # A run that failed without a failed test: it did not start, or ended early.
  read -r ok bad left <"$made/$name"
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then echo "$ok 1 $left" >"$made/$name"; fi
}

run_rust() {
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
  echo "$@" >"$made/rust"
}

if [ $# -gt 0 ]; then
  run_vitest some "$@"
  count $(cat "$made/some")
else
  {
    { run_vitest units --project unit && run_rust; } >"$made/log" 2>&1
    cat "$made/log"
  } &
  side=$!
  run_vitest end-to-end --project 'e2e*'
  wait "$side" || :
  side=
  for part in units rust; do count $(cat "$made/$part" || echo 0 1 0); done
  if [ "$failed" -ne "${CHECKS_FAILED:-0}" ]; then tail -n 60 "$made/log"; fi # where one looks
  count $(cat "$made/end-to-end")
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
