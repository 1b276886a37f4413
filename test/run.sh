#!/bin/sh
# npm test: builds what is stale, then runs every test there is: units, properties and end-to-end by vitest, Rust by cargo. What cannot
# run here is named with the reason. At the end are what failed, in short, and a line that counts all of them. With arguments, only vitest with
# these.
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
if [ -n "${FAILED_CHECKS-}" ]; then cp "$FAILED_CHECKS" "$made/checks"; else : >"$made/checks"; fi # by test/check.sh, a line each
failed=$(wc -l <"$made/checks")
passed=0
skipped=0

# NAME: adds what $made/NAME says: a line PASSED FAILED SKIPPED, and what failed
count() {
  [ -s "$made/$1" ] || printf '0 1 0\nfailed: %s ended early\n' "$1" >"$made/$1"
  read -r ok bad left <"$made/$1"
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
}

# NAME ARGUMENT…: vitest, its counts and failures in $made/NAME
run_vitest() {
  name=$1
  shift
  status=0
  LAZYLAYER_COUNTS=$made/$name vitest run "$@" || status=$?
  [ -s "$made/$name" ] || echo 0 0 0 >"$made/$name"
  # A run that failed without a failed test: it did not start, or ended early.
  read -r ok bad left <"$made/$name"
  if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then printf '%s 1 %s\nfailed: vitest, %s\n' "$ok" "$left" "$name" >"$made/$name"; fi
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
  {
    echo "$@"
    sed -n 's/^test \(.*\) \.\.\. FAILED$/failed: native: \1/p' "$made/cargo"
  } >"$made/rust"
}

if [ $# -gt 0 ]; then
  run_vitest some "$@"
  parts=some
else
  {
    { run_vitest units --project unit && run_rust; } >"$made/log" 2>&1
    cat "$made/log"
  } &
  side=$!
  run_vitest end-to-end --project 'e2e*'
  wait "$side" || :
  side=
  parts='units rust end-to-end'
fi
for part in $parts; do count "$part"; done

cat "$made/checks"
for part in $parts; do tail -n +2 "$made/$part"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
