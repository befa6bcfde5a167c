#!/bin/sh
# The entry point of common/build-aux/Dockerfile: docker-entry.sh STEP [OPTION]... [PORT]
#
# STEP may also be the path of a variant. The server listens on all addresses of the container,
# because a published port does not arrive at 127.0.0.1. The server takes the place of this
# script, so it is process 1 and gets the signals of `docker stop` itself. Until then the script
# is process 1, for which the kernel drops signals that have no handler.
trap 'exit 0' TERM INT
CDPATH='' cd "$(dirname "$0")/../.." || exit 1
program=${1-}
[ -d "$program" ] && program=$program/server
if [ ! -f "$program" ] || [ ! -x "$program" ]; then
    echo "usage: docker run -p 8080:8080 IMAGE STEP [OPTION]... [PORT]; STEP is one of" >&2
    printf '%s\n' step*_* >&2
    exit 2
fi
shift
exec "$program" --bind 0.0.0.0 "$@"
