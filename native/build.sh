#!/bin/sh
# Builds native/lazylayer.node and the programs native/lazylayer-keeper and native/lazylayer-auth-helper; says nothing and does nothing
# when all are newer than what they are made of.
set -eu
cd "$(dirname "$0")"

stale() {
  [ ! -e "$1" ] || [ -n "$(find Cargo.toml Cargo.lock build.rs build.sh src -newer "$1" -print -quit)" ]
}

# A new file in place of the old one, which a running agent has mapped.
replace() {
  cp "$1" "$2.new"
  mv "$2.new" "$2"
}

# npx and npm find the tools; so does a plain call
PATH="$PWD/../node_modules/.bin:$PATH"

if stale lazylayer.node; then
  echo 'building native/lazylayer.node' >&2
  napi build --release --manifest-path Cargo.toml --package-json-path ../package.json --output-dir target/addon \
    --no-js --dts lazylayer.d.ts -- --locked --quiet
  replace target/addon/lazylayer.node lazylayer.node
fi
for program in lazylayer-keeper lazylayer-auth-helper; do
  if stale "$program"; then
    echo "building native/$program" >&2
    cargo build --release --locked --quiet --bin "$program"
    replace "target/release/$program" "$program"
  fi
done
