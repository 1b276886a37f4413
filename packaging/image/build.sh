#!/bin/sh
# build.sh TAG [amd64|arm64]…: builds the image, for this machine's architecture or those that are named, as one manifest list TAG. BASE says what
# it stands on (default: Debian 13, slim). Needs a checkout with what `npm run build` needs, and buildah; for the other architecture Rust's
# target and a linker (rustup target add, gcc-aarch64-linux-gnu). FILES=DIR keeps what goes into the image there, and builds none.
set -eu
cd "$(dirname "$0")/../.."
checkout=$PWD
PATH=$PWD/node_modules/.bin:$PATH
tag=${1:?build.sh TAG [amd64|arm64]…}
shift

# what, why, what to do
stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

case $(uname -m) in
x86_64) own=amd64 ;;
aarch64) own=arm64 ;;
*) stop "build.sh: $(uname -m) is not known" 'lazylayer is built for amd64 and arm64' 'use one of these' ;;
esac
[ $# -gt 0 ] || set -- "$own"

context=${FILES:-}
made=
if [ -z "$context" ]; then
  made=$(mktemp -d)
  context=$made
  trap 'rm -rf "$made"' EXIT
fi
mkdir -p "$context"

sh test/build.sh
packed=$context/$(npm pack --silent --pack-destination "$context")

# ARCH: the addon and the programs, from this machine's compiler
native() {
  if [ "$1" = "$own" ]; then
    for file in lazylayer.node lazylayer-keeper lazylayer-auth-helper; do cp "native/$file" "$2/native/"; done
    return
  fi
  case $1 in
  amd64) target=x86_64-unknown-linux-gnu linker=x86_64-linux-gnu-gcc ;;
  arm64) target=aarch64-unknown-linux-gnu linker=aarch64-linux-gnu-gcc ;;
  esac
  command -v "$linker" >/dev/null || stop "build.sh: $linker is missing" "it links for $1" "install the package that has it (gcc-aarch64-linux-gnu, gcc-x86-64-linux-gnu)"
  name=$(echo "$target" | tr 'a-z-' 'A-Z_')
  env "CARGO_TARGET_${name}_LINKER=$linker" cargo build --release --locked --quiet --target "$target" --manifest-path native/Cargo.toml ||
    stop "build.sh: native/ cannot be built for $1" 'cargo said why' "for a missing target: rustup target add $target"
  cp "native/target/$target/release/liblazylayer.so" "$2/native/lazylayer.node"
  cp "native/target/$target/release/lazylayer-keeper" "native/target/$target/release/lazylayer-auth-helper" "$2/native/"
}

for arch in "$@"; do
  case $arch in
  amd64) cpu=x64 ;;
  arm64) cpu=arm64 ;;
  *) stop "build.sh: $arch is not known" 'lazylayer is built for amd64 and arm64' 'name one of these' ;;
  esac
  root=$context/$arch
  package=$root/lib/node_modules/lazylayer
  rm -rf "$root"
  mkdir -p "$root/bin" "$package"
  tar -xzf "$packed" -C "$package" --strip-components=1
  cp package-lock.json .npmrc "$package/"
  # the versions of the lock, and of the optional packages those for that processor
  (cd "$package" && npm ci --silent --omit=dev --ignore-scripts --os=linux --cpu="$cpu")
  node=node_modules/node-linux-$cpu
  [ -x "$package/$node/bin/node" ] || stop "build.sh: node-linux-$cpu is missing" 'it has the Node that the image runs on' \
    'see that the npm registry has it, and try again'
  rm -rf "$package/package-lock.json" "$package/.npmrc" "$package/$node/include" "$package/$node/share"
  native "$arch" "$package"
  ln -s "../lib/node_modules/lazylayer/$node/bin/node" "$root/bin/node"
  ln -s ../lib/node_modules/lazylayer/native/lazylayer-auth-helper "$root/bin/lazylayer-auth-helper"
  install -m 755 packaging/image/lazylayer packaging/image/lazylayer-node "$root/bin/"
  cp packaging/lazylayer.service "$root/"
  # what is installed beside it on a node has another name when it is another
  contents=$(cd "$root" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-8)
  printf '%s-%s\n' "$(cd "$checkout" && node -p 'require("./package.json").version')" "$contents" >"$root/version"
done
rm -f "$packed"

if [ -n "$made" ]; then
  platforms=$(for arch in "$@"; do printf 'linux/%s,' "$arch"; done)
  buildah manifest rm "$tag" >/dev/null 2>&1 || : # another of that name
  buildah build --quiet --platform "${platforms%,}" --manifest "$tag" ${BASE:+--build-arg "BASE=$BASE"} \
    --file packaging/image/Dockerfile "$context"
fi
