#!/bin/sh
# Builds and tests the tree with other compilers, flags and C libraries than the usual ones, for
# `make matrix`.
#
#   common/tools/matrix.sh [NAME...]    only these rows
#
# Each row is built in a copy of the tree, build/matrix/NAME, with warnings as errors. There the
# unit tests run, and each server with failing calls. With a sanitizer, or with SUITES=1, the
# suites run as well. A row whose compiler is absent is skipped with a message. With REQUIRE_ALL=1
# it fails.
set -u
CDPATH='' cd "$(dirname "$0")/../.." || exit 2
wanted=" $* "
known=''
failed=0

copy_tree() {
    rm -rf "$copy"
    mkdir -p "$copy"
    unset PKG_CONFIG_LIBDIR
    tar -cf - --exclude=build --exclude=server --exclude=load-client --exclude=__pycache__ \
        Makefile common clients step*_* | tar -xf - -C "$copy"
}

# The compiler of musl sees no other library. So there is no libuv, no cmocka, and pkg-config must
# not find any.
leave_out_libraries() {
    rm -rf "$copy"/step7_* "$copy"/*/tests/test_*.c "$copy"/*/load/tests/test_*.c "$copy"/common/tests/faults.c
    goals=all
    export PKG_CONFIG_LIBDIR=/nonexistent
}

row() { # NAME CC CFLAGS AR SANITIZERS
    name=$1 cc=$2 cflags="$3 -Werror" ar=${4:-ar} san=${5-} copy=build/matrix/$1
    known="$known $name "
    case $wanted in '  ' | *" $name "*) ;; *) return ;; esac
    lacks=''
    command -v "$ar" >/dev/null || lacks="no $ar"
    # shellcheck disable=SC2086  # a list of words
    echo 'int main(void) { return 0; }' |
        $cc $cflags ${san:+-fsanitize=$san} -x c -o build/matrix/probe - 2>/dev/null ||
        lacks="no $cc that takes $3${san:+ -fsanitize=$san}"
    if [ -n "$lacks" ]; then
        if [ "${REQUIRE_ALL:-0}" = 0 ]; then
            echo "skip  $name: $lacks"
        else
            echo "FAIL  $name: $lacks, and REQUIRE_ALL is set"
            failed=1
        fi
        return
    fi
    goals='all tests'
    copy_tree
    case $cc in musl-*) leave_out_libraries ;; esac
    for part in "$copy"/common "$copy"/clients "$copy"/step*; do
        # shellcheck disable=SC2086
        if ! make -s -j2 -C "$part" CC="$cc" AR="$ar" CFLAGS="$cflags" SAN="$san" $goals \
            >"$copy/log" 2>&1; then
            tail -30 "$copy/log"
            echo "FAIL  $name: it does not build ($cc $cflags)"
            failed=1
            return
        fi
    done
    parts='replay_ under'
    for unit in common/tests/test_*.c clients/load/tests/test_*.c step*_*/tests/test_*.c; do
        unit=${unit##*/}
        parts="$parts ${unit%.c}"
    done
    case $cflags in
    *-flto*) ;; # link-time optimisation calls some functions directly, and not those of faults.c
    *) parts="$parts faults_" ;;
    esac
    [ "${SUITES:-0}$san" = 0 ] || parts="$parts step"
    slow=${CHECK_SLOW:-1}
    [ -z "$san" ] || slow=3
    # shellcheck disable=SC2086
    if SAN="$san" CHECK_SLOW=$slow python3 "$copy/common/tests/check-all.py" --quick $parts \
        >"$copy/log" 2>&1; then
        echo "ok    $name: $(tail -1 "$copy/log") ($cc $cflags)"
    else
        sed -n '/seconds$/,$p' "$copy/log"
        echo "FAIL  $name: $(tail -1 "$copy/log") ($cc $cflags)"
        failed=1
    fi
}

mkdir -p build/matrix
row gcc-O0 gcc '-O0 -g'
row gcc-NDEBUG gcc '-O2 -g -DNDEBUG'
row gcc-O3-lto gcc '-O3 -flto' gcc-ar
row clang-O0 clang '-O0 -g'
row clang-O2 clang '-O2 -g'
row clang-NDEBUG clang '-O2 -DNDEBUG'
row clang-O3-lto clang '-O3 -flto' llvm-ar
row sanitizers gcc '-O1 -g' ar address,undefined
row sanitizers-clang clang '-O1 -g' ar address,undefined
row threads gcc '-O1 -g' ar thread
row musl musl-gcc '-O2 -g -Wno-sign-conversion' # its FD_SET is a macro that warns
for name in $wanted; do
    case $known in *" $name "*) ;; *)
        echo "matrix: no row $name; there are$known" | tr -s ' ' >&2
        failed=2
        ;;
    esac
done
exit $failed
