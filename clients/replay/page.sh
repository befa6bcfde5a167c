#!/bin/sh
# Builds the page of the course: `make page`. Needs node, npm and python3, and says so where
# they are missing (exit 0; with REQUIRE_ALL=1 that is a failure).
set -eu
CDPATH='' cd "$(dirname "$0")"

for program in node npm python3; do
    command -v "$program" >/dev/null || {
        echo "skip  page: $program is not installed (Debian: nodejs npm python3)"
        [ "${REQUIRE_ALL:-0}" = 0 ]
        exit
    }
done
# marked, the Markdown renderer, in the version that package-lock.json names
test node_modules/.package-lock.json -nt package-lock.json || npm ci --loglevel=error || {
    echo "page: npm could not fetch the Markdown renderer (the lines above say why)." \
        "It is fetched once and needs the network; the page itself needs none." >&2
    exit 1
}
node build.js "$@"
