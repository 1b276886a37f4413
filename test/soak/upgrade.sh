#!/bin/sh
# npm run soak:upgrade [COMMIT]: builds the package of a commit, runs its agent under a container and a program that verifies what it reads,
# and has this version go on. The default is the version before chunks had checksums.
set -eu
cd "$(dirname "$0")/../.."
commit=${1:-9111b7b}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
git archive "$commit" | tar -x -C "$made"
ln -s "$PWD/node_modules" "$made/node_modules"
# what it is built of is compiled once
mkdir -p native/target/earlier
ln -s "$PWD/native/target/earlier" "$made/native/target"
sh "$made/native/build.sh"
LAZYLAYER_UPGRADE_FROM=$made node_modules/.bin/vitest run --project e2e test/e2e/keeper.test.ts -t 'another version'
