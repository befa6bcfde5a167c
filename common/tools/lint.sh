#!/bin/sh
# Runs every installed analyser over the whole tree, for `make lint`. The argument `format` is for
# `make format-check`, and `format-fix` for `make format`.
#
# An absent tool is skipped with a message; with REQUIRE_ALL=1 its absence is a failure. A wrong
# report of an analyser is suppressed where it occurs, with the reason. A class of reports that
# does not concern this project is switched off in .clang-tidy, in .flake8 or below.
set -u
CDPATH='' cd "$(dirname "$0")/../.." || exit 2

FLAGS="-D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -D_DARWIN_C_SOURCE
       -Icommon -Istep6_epoll -Istep8_ae -Iclients/load -idirafter common/tests/kqueue $(pkg-config --cflags libuv 2>/dev/null)"
failed=0

files() { # PATTERN: the files of the tree, without build products
    find common clients step*_* -name build -prune -o -type f -name "$1" -print | sort
}

# The C sources that compile here. The others need a library that is absent, or another system.
sources() {
    for source in $(files '*.c'); do
        case $source in
        */lessons/gallery/wrong/*) continue ;; # their bugs are meant
        esac
        # shellcheck disable=SC2086  # a list of words
        if ${CC:-cc} -std=c11 $FLAGS -E "$source" >/dev/null 2>&1; then
            echo "$source"
        else
            echo "skip  $source: its headers are not on this system" >&2
        fi
    done
}

have() {
    command -v "$1" >/dev/null && return 0
    if [ "${REQUIRE_ALL:-0}" = 0 ]; then
        echo "skip  $1: not installed"
    else
        echo "FAIL  $1: not installed, and REQUIRE_ALL is set"
        failed=1
    fi
    return 1
}

report() { # NAME FILES OUTPUT: no output means no findings
    if [ -z "$3" ]; then
        echo "ok    $1 ($(echo "$2" | wc -w | tr -d ' ') files)"
    else
        printf 'FAIL  %s\n%s\n' "$1" "$3"
        failed=1
    fi
}

format() { # format|format-fix
    have clang-format || return 0
    all="$(files '*.c') $(files '*.h')"
    # shellcheck disable=SC2086
    case $1 in
    format) report clang-format "$all" "$(clang-format --dry-run -Werror $all 2>&1)" ;;
    format-fix) clang-format -i $all ;;
    esac
}

case ${1-} in
'') ;;
format | format-fix)
    format "$1"
    exit $failed
    ;;
*)
    echo 'usage: common/tools/lint.sh [format|format-fix]' >&2
    exit 2
    ;;
esac

sources=$(sources) || exit 2

# Runs a function on each source. Each line that the function prints is a finding.
each_source() { # NAME FUNCTION
    have "$1" || return 0
    # shellcheck disable=SC2086
    report "$1" "$sources" "$(for source in $sources; do
        said=$("$2" "$source" 2>&1) || said=${said:-$source: $1 failed without a message}
        [ -z "$said" ] || echo "$said"
    done)"
}

# shellcheck disable=SC2086,SC2317  # words, and a function that is called by its name
tidy() {
    said=$(clang-tidy --quiet "$1" -- -std=c11 $FLAGS 2>/dev/null) ||
        echo "$said" | grep -A 2 '\(error\|warning\): '
}

# shellcheck disable=SC2086,SC2317
analyse() { # a test may crash when malloc fails
    case $1 in
    */tests/*) allowed='-Wno-analyzer-possible-null-dereference
                      -Wno-analyzer-possible-null-argument' ;;
    */ae.c | */io_uring.c) allowed=-Wno-analyzer-malloc-leak ;; # it does not see what a structure keeps
    *) allowed='' ;;
    esac
    gcc -std=c11 $FLAGS -Wall -Wextra -O2 -fanalyzer -fdiagnostics-path-format=none $allowed \
        -c -o /dev/null "$1"
}

# shellcheck disable=SC2086,SC2317
check() { # suppressed: matters of taste, and fields that only another file reads
    cppcheck --quiet --std=c11 --enable=warning,style,performance,portability --inline-suppr \
        --suppress=missingIncludeSystem --suppress=unusedStructMember \
        --suppress=clarifyCalculation --suppress=variableScope $FLAGS "$1"
}

each_source clang-tidy tidy
each_source gcc analyse
each_source cppcheck check

scripts=$(files '*.sh' && echo .ci/run)
# shellcheck disable=SC2086
have shellcheck && report shellcheck "$scripts" "$(shellcheck $scripts 2>&1)"
scripts=$(files '*.py')
# shellcheck disable=SC2086
have flake8 && report flake8 "$scripts" "$(flake8 $scripts 2>&1)"

# Its warnings are printed, but they are no failure.
if have python3; then
    if said=$(python3 common/tools/prose.py 2>&1); then
        echo 'ok    prose'
    else
        echo 'FAIL  prose'
        failed=1
    fi
    [ -z "$said" ] || echo "$said"
fi
exit $failed
