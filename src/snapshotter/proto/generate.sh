#!/bin/sh
# npm run build:proto: TypeScript of what containerd speaks on the wire, in ../generated/. The compiler is fetched for the run alone: it is
# larger than all else that is installed for development.
set -eu
cd "$(dirname "$0")"
npx --yes -p @bufbuild/buf@1.75.0 -p @bufbuild/protoc-gen-es@2.17.0 buf generate
