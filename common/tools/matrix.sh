#!/bin/sh
# Builds and tests the tree with other compilers, flags and C libraries than the usual ones, for
# `make matrix`.
#
#   common/tools/matrix.sh [NAME...]    only these rows
#
# Two rows are for other processors. In both the quick suite of each server and variant runs as
# well. arm64 is run by qemu-user. i686 has 32 bits, and most processors here run it themselves; it
# has no libraries, so no unit tests. `common/build-aux/setup.sh cross` installs what they need, on
# Debian. On other systems they are skipped.
#
# Each row is built in a copy of the tree, build/matrix/NAME, with warnings as errors. There the
# unit tests run, and each server with failing calls. With a sanitizer, or with SUITES=1, the
# suites run as well. A row whose compiler is absent is skipped with a message. With REQUIRE_ALL=1
# it fails.
set -u
CDPATH='' cd "$(dirname "$0")/../.." || exit 2
wanted=" $* "
cross=''    # set for a row for another processor
emulator='' # what runs its programs, if this processor does not
known=''
failed=0

copy_tree() {
    rm -rf "$copy"
    mkdir -p "$copy"
    unset PKG_CONFIG_LIBDIR
    tar -cf - --exclude=build --exclude=server --exclude=load-client --exclude=__pycache__ \
        Makefile common clients step*_* | tar -xf - -C "$copy"
}

# The compilers of musl and for i686 see no other library. So there is no libuv, no cmocka, and pkg-config must
# not find any.
leave_out_libraries() {
    rm -rf "$copy"/step7_* "$copy"/*/tests/test_*.c "$copy"/*/load/tests/test_*.c "$copy"/common/tests/faults.c
    goals=all
    export PKG_CONFIG_LIBDIR=/nonexistent
}

not_debian() {
    ! grep -qs '^ID=debian' /etc/os-release
}

# Finds the libraries of another processor, or sets lacks
cross_libraries() {
    export PKG_CONFIG_LIBDIR="/usr/lib/${cc%-gcc}/pkgconfig"
    for library in cmocka libuv; do
        pkg-config --exists "$library" || lacks="no $library for this processor"
    done
    command -v "$emulator" >/dev/null || lacks="no $emulator"
}

# Puts a script in the place of each program, which runs the program by the emulator.
emulate() {
    find "$copy" -path '*/elf' -prune -o -type f -perm -u+x -print | while read -r file; do
        [ "$(head -c 4 "$file" | tail -c 3)" = ELF ] || continue
        folder=${file%/*}/elf
        mkdir -p "$folder"
        mv "$file" "$folder/"
        # shellcheck disable=SC2016  # for that script
        printf '#!/bin/sh\nexec %s -0 "$0" "%s" "$@"\n' "$emulator" "$PWD/$folder/${file##*/}" >"$file"
        chmod +x "$file"
    done
    rm -f "$copy/step6_epoll/build/variants/io_uring" # the emulator has no such system calls
    # Both change the system calls of the program that runs, which would be the emulator.
    rm "$copy/common/tests/faults.c" "$copy/clients/tests/inject.py"
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
    if [ -n "$emulator" ]; then
        cross_libraries
    elif [ -z "$lacks" ]; then
        build/matrix/probe || lacks="this processor does not run it"
    fi
    if [ -n "$lacks" ]; then
        if [ "${REQUIRE_ALL:-0}" = 0 ] || { [ -n "$cross" ] && not_debian; }; then
            echo "skip  $name: $lacks"
        else
            echo "FAIL  $name: $lacks, and REQUIRE_ALL is set"
            failed=1
        fi
        return
    fi
    goals='all tests'
    copy_tree
    [ -z "$emulator" ] || cross_libraries
    case $cc in musl-* | *-static) leave_out_libraries ;; esac
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
    # Link-time optimisation calls some functions directly, and not those of faults.c and test_drain.c.
    parts='replay_ under'
    for unit in common/tests/test_*.c clients/load/tests/test_*.c step*_*/tests/test_*.c; do
        unit=${unit##*/}
        case $unit$cflags in test_drain.c*-flto*) continue ;; esac
        parts="$parts ${unit%.c}"
    done
    case $cflags in
    *-flto*) ;;
    *) parts="$parts faults_" ;;
    esac
    [ "${SUITES:-0}$san" = 0 ] || parts="$parts step"
    slow=${CHECK_SLOW:-1}
    [ -z "$san$emulator" ] || slow=3
    [ -z "$emulator" ] || emulate
    [ -z "$cross" ] || parts="$parts step"
    # shellcheck disable=SC2086
    if SAN="$san" CHECK_SLOW=$slow CHECK_EMULATED="$emulator" python3 "$copy/common/tests/check-all.py" --quick $parts \
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
cross=yes
row i686 'i686-linux-gnu-gcc -static' '-O2 -g -Wno-conversion -Wno-psabi' i686-linux-gnu-ar
emulator=qemu-aarch64
row arm64 aarch64-linux-gnu-gcc '-O2 -g' aarch64-linux-gnu-ar
for name in $wanted; do
    case $known in *" $name "*) ;; *)
        echo "matrix: no row $name; there are$known" | tr -s ' ' >&2
        failed=2
        ;;
    esac
done
exit $failed
