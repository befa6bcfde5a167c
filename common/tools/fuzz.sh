#!/bin/sh
# Runs each fuzz target of common/tests for a while, for `make fuzz`.
#
#   common/tools/fuzz.sh [SECONDS]      per target, 30 by default
#
# Needs clang with libFuzzer. New inputs are kept in build/fuzz/, and the next run uses them. An
# input that fails is kept there as NAME-crash-...; `build/fuzz/fuzz_NAME FILE` tries it again.
set -eu
CDPATH='' cd "$(dirname "$0")/../.."
seconds=${1:-30}
case $seconds in *[!0-9]* | '')
    echo 'usage: common/tools/fuzz.sh [SECONDS]' >&2
    exit 2
    ;;
esac
mkdir -p build/fuzz

absent() {
    if [ "${REQUIRE_ALL:-0}" = 0 ]; then
        echo "skip  fuzz: $1"
        exit 0
    fi
    echo "FAIL  fuzz: $1, and REQUIRE_ALL is set"
    exit 1
}
command -v clang >/dev/null || absent 'clang is not installed'
echo 'int LLVMFuzzerTestOneInput(const char *s, long n) { return !s && n; }' |
    clang -fsanitize=fuzzer -x c -o build/fuzz/probe - 2>/dev/null || absent 'this clang has no libFuzzer'

for source in common/tests/fuzz_*.c; do
    name=${source##*/fuzz_}
    name=${name%.c}
    wrap=$(sed -n 's/.*__wrap_\([a-z]*\)(.*;$/-Wl,--wrap=\1/p' "$source")
    # shellcheck disable=SC2086  # a list of words
    clang -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE -Icommon -g -O1 \
        -pthread -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
        "$source" common/*.c $wrap \
        -o "build/fuzz/fuzz_$name"
    mkdir -p "build/fuzz/$name"
    if "build/fuzz/fuzz_$name" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="build/fuzz/$name-" "build/fuzz/$name" "common/tests/corpus/$name" \
        >"build/fuzz/$name.log" 2>&1; then
        echo "ok    fuzz_$name: $(sed -n 's/^Done \([0-9]* runs in [0-9]* second\).*/\1s/p' "build/fuzz/$name.log")"
    else
        tail -40 "build/fuzz/$name.log"
        echo "FAIL  fuzz_$name: see above, and build/fuzz/$name.log"
        failed=1
    fi
done
exit "${failed:-0}"
