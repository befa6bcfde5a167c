#!/bin/sh
# Everything that takes long, one thing after another: what `make check-full` calls once the tree
# is built.
#
#   common/tests/check-full.sh [STAGE...]   only these stages
#
# Goes on after a failure and sums up at the end. Exit status 1 if anything failed, 2 if there
# is no such stage.
set -u
cd "$(dirname "$0")/../.." || exit 2
stages='check bench-check lint format-check memcheck fuzz coverage matrix'
summary=''
failed=0

for name in "$@"; do
    case " $stages " in *" $name "*) ;; *)
        echo "check-full: no stage $name; there are $stages" >&2
        exit 2
        ;;
    esac
done

run() {
    case $1 in
    check) clients/check-all.py --full ;;
    bench-check) clients/bench/check.py ;;
    lint) common/tests/lint.sh ;;
    format-check) common/tests/lint.sh format ;;
    memcheck) common/tests/memcheck.py ;;
    fuzz) common/tests/fuzz.sh ;;
    coverage) common/tests/coverage.py ;;
    matrix) common/tests/matrix.sh ;;
    esac
}

# shellcheck disable=SC2086  # a list of words
[ $# -gt 0 ] || set -- $stages
for name in "$@"; do
    printf '\n==== %s\n' "$name"
    began=$(date +%s)
    if run "$name"; then verdict='ok  '; else verdict=FAIL failed=1; fi
    summary="$summary$(printf '%s  %-12s %5d s' "$verdict" "$name" $(($(date +%s) - began)))
"
done
printf '\n%s' "$summary"
exit $failed
