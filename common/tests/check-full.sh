#!/bin/sh
# Everything that takes long, one thing after another: what `make check-full` calls once the tree
# is built. Goes on after a failure and sums up at the end; exit status 1 if anything failed.
set -u
cd "$(dirname "$0")/../.." || exit 2
summary=''
failed=0

stage() { # NAME COMMAND...
    name=$1
    shift
    printf '\n==== %s\n' "$name"
    began=$(date +%s)
    if "$@"; then verdict='ok  '; else verdict=FAIL failed=1; fi
    summary="$summary$(printf '%s  %-40s %5d s' "$verdict" "$name" $(($(date +%s) - began)))
"
}

stage 'tests, all of them in full' clients/check-all.py --full
stage 'claims about cost' clients/bench/check.py
stage 'analysers' common/tests/lint.sh
stage 'layout of the code' common/tests/lint.sh format
stage 'valgrind' common/tests/memcheck.py
stage 'fuzzing' common/tests/fuzz.sh
stage 'coverage' common/tests/coverage.py
stage 'compilers, flags, sanitizers, musl' common/tests/matrix.sh
printf '\n%s' "$summary"
exit $failed
