#!/bin/sh
# Builds common/build-aux/Dockerfile, unmodified, with a real container engine (buildah), and tries
# the server of each step in the result. No registry is asked: the base is a bare Debian that is
# made by debootstrap and imported as debian:stable-slim.
#
#   container-check.sh    as root; all that it makes is deleted afterwards
#
# Exit status: 0 all is well, 1 something failed.
set -u
CDPATH='' cd "$(dirname "$0")/../.." || exit 1
folder=$(mktemp -d /var/tmp/container-check.XXXXXX) || exit 1
trap 'rm -rf --one-file-system "$folder"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

engine() {
    buildah --root "$folder/images" --runroot "$folder/run" --storage-driver vfs "$@"
}

die() {
    echo "container-check: $1" >&2
    exit 1
}

# Runs on the container: starts the entry point on a free port, lets five clients check the answers,
# and stops it.
# shellcheck disable=SC2016  # for the shell there
try_step='set -e
log=$(mktemp)
common/build-aux/docker-entry.sh "$1" --quiet 0 >"$log" & server=$!
for _ in 0 1 2 3 4 5 6 7 8 9; do grep -q : "$log" || sleep 0.3; done
port=$(sed -n "s/^Listening on 0.0.0.0://p" "$log")
[ -n "$port" ] || { kill $server; exit 1; }
clients/simple-client.py -n 5 --time-scale 0.05 127.0.0.1 "$port" >/dev/null 2>&1 ||
    { kill $server; exit 1; }
kill $server
wait $server'

mkdir "$folder/debian" && chmod 755 "$folder" "$folder/debian"
echo 'making a bare Debian'
debootstrap --variant=minbase stable "$folder/debian" >"$folder/log" 2>&1 ||
    die "debootstrap: $(tail -1 "$folder/log")"
base=$(engine from scratch) || die 'cannot make an image'
engine add -q "$base" "$folder/debian" / >/dev/null || die 'cannot fill the image'
engine commit -q --rm "$base" debian:stable-slim >/dev/null || die 'cannot save the image'
rm -rf --one-file-system "$folder/debian"

echo 'building common/build-aux/Dockerfile'
engine bud --isolation chroot --pull-never -t echo -f common/build-aux/Dockerfile . \
    >"$folder/log" 2>&1 || { tail -20 "$folder/log" >&2; die 'the Dockerfile does not build'; }
container=$(engine from --pull-never localhost/echo) || die 'there is no image'
case $(engine run --isolation chroot "$container" -- id -u) in
0) die 'a container would run as root' ;;
esac
for step in step*_*; do
    engine run --isolation chroot "$container" -- sh -c "$try_step" sh "$step" ||
        die "$step does not serve"
    echo "ok    $step"
done
