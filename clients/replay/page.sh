#!/bin/sh
# Builds the page of the course: `make page`. Needs node and npm, and says so where they are
# missing (exit 0; with REQUIRE_ALL=1 that is a failure).
set -eu
CDPATH='' cd "$(dirname "$0")"

for program in node npm; do
    command -v "$program" >/dev/null || {
        echo "skip  page: $program is not installed (Debian: nodejs npm)"
        [ "${REQUIRE_ALL:-0}" = 0 ]
        exit
    }
done
# marked, the Markdown renderer, in the version that package-lock.json names
test node_modules/.package-lock.json -nt package-lock.json ||
    npm ci --no-audit --no-fund --loglevel=error
node build.js "$@"
