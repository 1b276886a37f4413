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

built=
for each in lazylayer.node lazylayer-keeper lazylayer-auth-helper; do
  if stale "$each"; then built="$built $each"; fi
done
[ -n "$built" ] || exit 0
echo "building${built}, in native/" >&2
# All at once and for one named target, as napi has it: what the programs share with the addon is compiled once.
target=$(rustc -vV | sed -n 's/^host: //p')
napi build --release --target "$target" --manifest-path Cargo.toml --package-json-path ../package.json --output-dir target/addon \
  --no-js --dts lazylayer.d.ts -- --locked --quiet --lib --bins
replace target/addon/lazylayer.node lazylayer.node
for program in lazylayer-keeper lazylayer-auth-helper; do replace "target/$target/release/$program" "$program"; done
