#!/bin/sh
# npm run build: makes what is missing or older than its source, and nothing else. Run again, it does nothing. `build.sh packages` makes
# only the first:
#   node_modules   npm ci, with the Node that the project runs on
#   native/        the addon, the keeper and the auth helper (native/build.sh)
set -eu
cd "$(dirname "$0")/.."

# what, why, what to do
stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

command -v npm >/dev/null || stop 'build: npm is missing' 'the packages come from the npm registry' 'install Node 20 or newer with npm'
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo 'build: node_modules (npm ci)'
  npm ci --loglevel=error --no-audit --no-fund
  touch node_modules/.package-lock.json # newer than the lock, whatever the clock of a checkout says
fi
PATH=$PWD/node_modules/.bin:$PATH
[ "${1-}" != packages ] || exit 0
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 19) ? 0 : 1)' ||
  stop "build: $(node --version) is too old" 'Node 22.19 or newer runs TypeScript; npm left out the optional package that has it' \
    'run npm ci --include=optional'

rust_min=88 # what napi 3 needs
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
command -v cargo >/dev/null || stop 'build: cargo is missing' 'native/ is written in Rust' \
  "install Rust 1.$rust_min or newer with rustup (Debian 12's own, 1.63, is too old)"
rust=$(cargo --version)
minor=$(printf '%s' "$rust" | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p')
[ "${minor:-$rust_min}" -ge "$rust_min" ] || stop "build: $rust is too old" 'napi needs it' \
  "install Rust 1.$rust_min or newer with rustup"
sh native/build.sh
