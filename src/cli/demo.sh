#!/bin/sh
# npm run demo: builds what is missing, then shows the main job on an image made from this machine's own files.
# Everything it writes lies in this clone (.cache/demo), and is removed at the end, on Ctrl-C too.
set -eu
cd "$(dirname "$0")/../.."
sh test/build.sh
PATH="$PWD/node_modules/.bin:$PATH"
export PATH
exec node src/cli/demo.ts
