#!/bin/sh
# Builds codecs.wasm from pinned sources with a pinned compiler.
#
#   sh wasm/build.sh            rebuilds wasm/codecs.wasm
#   sh wasm/build.sh --check    rebuilds elsewhere and compares with the committed file, byte for byte; exit 1 when they differ
#   sh wasm/build.sh --changed [COMMIT]
#                               exit 0 when anything here but the documents differs from COMMIT (default: HEAD^), 1 when not: whether to check
#
# Downloads once, checked against wasm/Cargo.lock and wasm/requirements.txt, into .cache/wasm (LAZYLAYER_WASM_CACHE): about
# 500 MB. Needs cargo, and python3 with venv.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${LAZYLAYER_WASM_CACHE:-$here/../.cache/wasm}

fail() {
  echo "wasm/build.sh: $1" >&2
  exit "${2:-2}"
}

case "${1:-}" in
  '' | --check) ;;
  --changed)
    ! git -C "$here" diff --quiet "${2:-HEAD^}" -- . ':!README.md' ':!NOTICES'
    exit
    ;;
  *) fail "unknown argument $1" ;;
esac

command -v cargo >/dev/null || fail 'cargo is missing: install Rust (https://rustup.rs)'
command -v python3 >/dev/null || fail 'python3 is missing'
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# a folder is renamed to its final name when it is complete; that name holds what it was made from
key=$(sha256sum <"$here/Cargo.lock" | cut -c1-16)
sources=$cache/sources-$key
if [ ! -d "$sources" ]; then
  echo 'fetching libdeflate, zstd, lz4 and BLAKE3' >&2
  rm -rf "$sources.part"
  cargo vendor --quiet --locked --manifest-path "$here/Cargo.toml" "$sources.part" >/dev/null
  mv "$sources.part" "$sources"
fi

key=$(sha256sum <"$here/requirements.txt" | cut -c1-16)
venv=$cache/zig-$key
if [ ! -f "$venv/complete" ]; then
  echo 'installing zig (a 94 MB wheel)' >&2
  rm -rf "$venv"
  python3 -m venv "$venv" || fail 'python3 cannot make a venv: install python3-venv'
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    -r "$here/requirements.txt"
  touch "$venv/complete"
fi

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Relative names only, so that the result does not depend on where this runs.
cp -r "$sources/libdeflate-sys/libdeflate" "$work/libdeflate"
cp -r "$sources/zstd-sys/zstd/lib" "$work/zstd"
cp -r "$sources/lz4-sys/liblz4/lib" "$work/lz4"
cp -r "$sources/blake3/c" "$work/blake3"
cp "$here"/*.c "$here"/*.h "$work/"
cd "$work"

# 268435456 = 256 MiB: an instance cannot hold more, whatever an image says.
# BLAKE3_USE_NEON: see blake3-lanes.c.
# 262144: zstd's largest frames on the stack are its Huffman workspaces, below 16 KiB.
ZIG_GLOBAL_CACHE_DIR=$cache/zig-cache ZIG_LOCAL_CACHE_DIR=$work/.zig SOURCE_DATE_EPOCH=0 \
  "$venv/bin/python" -m ziglang cc -target wasm32-wasi -mexec-model=reactor \
  -O3 -DNDEBUG -fno-sanitize=undefined -msimd128 -mbulk-memory -fvisibility=hidden -ffunction-sections -fdata-sections \
  -DZSTD_DISABLE_ASM -DZSTD_LEGACY_SUPPORT=0 -DZSTD_STRIP_ERROR_STRINGS -DXXH_NAMESPACE=ZSTD_ \
  -DBLAKE3_USE_NEON=1 \
  -Ilibdeflate -Izstd -Ilz4 -Iblake3 \
  -Wl,--gc-sections -Wl,--strip-all -Wl,-z,stack-size=262144 -Wl,--max-memory=268435456 \
  -Wl,--export=malloc -Wl,--export=free \
  -o codecs.wasm \
  codecs.c blake3-lanes.c sha256-lanes.c lz4/lz4.c blake3/blake3.c blake3/blake3_dispatch.c blake3/blake3_portable.c \
  libdeflate/lib/deflate_decompress.c libdeflate/lib/utils.c \
  zstd/common/entropy_common.c zstd/common/error_private.c zstd/common/fse_decompress.c zstd/common/xxhash.c \
  zstd/common/zstd_common.c zstd/decompress/huf_decompress.c zstd/decompress/zstd_ddict.c \
  zstd/decompress/zstd_decompress.c zstd/decompress/zstd_decompress_block.c

if [ "${1:-}" = --check ]; then
  cmp -s codecs.wasm "$here/codecs.wasm" || fail "wasm/codecs.wasm is not what its sources give: built $(sha256sum <codecs.wasm | cut -c1-16), committed $(sha256sum <"$here/codecs.wasm" | cut -c1-16). Run: npm run build:wasm" 1
  echo "wasm/codecs.wasm is what its sources give ($(sha256sum <codecs.wasm | cut -c1-16))"
else
  # onto the old one, whose mode stays
  cat codecs.wasm >"$here/codecs.wasm"
  echo "wasm/codecs.wasm: $(wc -c <"$here/codecs.wasm") bytes"
fi
