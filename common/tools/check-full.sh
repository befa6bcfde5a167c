#!/bin/sh
# Runs every check that takes long, one after another, for `make check-full`. The tree is built
# already.
#
#   common/tools/check-full.sh [STAGE...]   only these stages
#
# Continues after a failure, and prints a summary at the end. Exit status: 0 no failure, 1 a stage
# failed, 2 there is no such stage.
set -u
CDPATH='' cd "$(dirname "$0")/../.." || exit 2
stages='check docs bench-check claims lint format-check memcheck fuzz coverage matrix page dockerfile-check container-check'
summary=''
failed=0

for name in "$@"; do
    case " $stages " in *" $name "*) ;; *)
        echo "check-full: no stage $name; there are $stages" >&2
        exit 2
        ;;
    esac
done

# On a bare Debian, which is made for this and deleted afterwards
dockerfile_check() {
    if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
        echo 'skip  dockerfile-check: needs root, and debootstrap'
        [ "${REQUIRE_ALL:-0}" = 0 ]
        return
    fi
    machine=$(mktemp -d) || return
    chmod 755 "$machine"
    debootstrap --variant=minbase stable "$machine" >"$machine.log" 2>&1 &&
        common/tools/dockerfile-check.sh chroot "$machine"
    verdict=$?
    rm -rf --one-file-system "$machine" "$machine.log"
    return "$verdict"
}

container_check() {
    for tool in buildah debootstrap; do
        if [ "$(id -u)" != 0 ] || ! command -v $tool >/dev/null; then
            echo "skip  container-check: needs root, buildah and debootstrap"
            [ "${REQUIRE_ALL:-0}" = 0 ]
            return
        fi
    done
    common/tools/container-check.sh
}

# The page at more moments, and every scene recorded again and compared with what is committed
page_check() {
    MOMENTS=1000 python3 common/tests/unittest_tap.py clients/replay/tests/test_page.py &&
        clients/replay/record.py --compare
}

run() {
    case $1 in
    check) common/tests/check-all.py --full ;;
    docs) common/tools/docs.py --full --long ;;
    bench-check) clients/bench/check.py ;;
    claims) common/lessons/claims.py --check && common/lessons/claims.py --check --opposite ;;
    lint) common/tools/lint.sh ;;
    format-check) common/tools/lint.sh format ;;
    memcheck) common/tools/memcheck.py ;;
    fuzz) common/tools/fuzz.sh ;;
    coverage) common/tools/coverage.py ;;
    matrix) common/tools/matrix.sh ;;
    page) page_check ;;
    dockerfile-check) dockerfile_check ;;
    container-check) container_check ;;
    esac
}

# shellcheck disable=SC2086  # a list of words
[ $# -gt 0 ] || set -- $stages
for name in "$@"; do
    printf '\n==== %s\n' "$name"
    began=$(date +%s)
    if run "$name"; then verdict='ok  '; else verdict=FAIL failed=1; fi
    summary="$summary$(printf '%s  %-16s %5d s' "$verdict" "$name" $(($(date +%s) - began)))
"
done
printf '\n%s' "$summary"
exit $failed
