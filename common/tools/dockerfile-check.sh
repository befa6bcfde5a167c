#!/bin/sh
# Tests common/build-aux/Dockerfile without a container engine. It carries out each instruction on
# a bare Debian. Then it tries the server of each step as the Dockerfile would start it.
#
#   dockerfile-check.sh                         here, as root, on a Debian that nobody needs
#   dockerfile-check.sh chroot /var/tmp/debian  there: the words are a command that runs another
#                                               one on that machine, as root, with its own
#                                               standard input
#
# `debootstrap --variant=minbase stable /var/tmp/debian` makes such a machine. Not tested: the
# image of FROM, and that a published port is reached from outside. Exit status: 0 all is well,
# 1 something failed, 2 this machine cannot be used.
set -u
top=$(CDPATH='' cd "$(dirname "$0")/../.." && pwd) || exit 2
dockerfile=$top/common/build-aux/Dockerfile
user=root workdir=/ entrypoint='' command=''

die() {
    echo "dockerfile-check: $1" >&2
    exit "${2-1}"
}

# Turns a JSON list into words, none of which may hold a space: ["a", "b"] becomes a b.
words() {
    echo "$1" | tr -d '[]"' | tr , ' '
}

# Runs a line of shell on the machine, as the Dockerfile's user in its directory.
as_user() { # LINE PREFIX...
    line="cd '$workdir' && { $1
}"
    shift
    if [ "$user" = root ]; then
        "$@" sh -c "$line"
    else
        "$@" su -s /bin/sh "$user" -c "$line"
    fi
}

copy() { # SOURCE DESTINATION OWNER PREFIX...
    source=$1 destination=$2 owner=$3
    shift 3
    ignored=$(sed '/^#/d; s|^\*\*/||; s|^|--exclude=|' "$top/.dockerignore")
    if [ -d "$top/$source" ]; then
        # shellcheck disable=SC2086  # a list of words
        tar -C "$top/$source" $ignored -cf - . |
            "$@" sh -c "mkdir -p '$destination' && tar -C '$destination' -xf - &&
                        chown -R '$owner' '$destination'"
    else
        "$@" sh -c "cat >'$destination' && chown '$owner' '$destination'" <"$top/$source"
    fi
}

instruction() { # NAME REST PREFIX...
    name=$1 rest=$2
    shift 2
    case $name in
    FROM | EXPOSE) ;;
    RUN) as_user "$rest" "$@" </dev/null ;;
    COPY)
        owner=$user
        case $rest in --chown=*)
            owner=${rest%% *} owner=${owner#--chown=} rest=${rest#* }
            ;;
        esac
        copy "${rest% *}" "${rest#* }" "$owner" "$@"
        ;;
    WORKDIR) workdir=$rest && "$@" mkdir -p "$rest" ;;
    USER) user=$rest ;;
    ENTRYPOINT) entrypoint=$(words "$rest") ;;
    CMD) command=$(words "$rest") ;;
    *) die "cannot carry out $name" ;;
    esac
}

# Starts the entry point on a free port, and lets five clients check the answers.
try_server() { # ARGUMENTS PREFIX...
    arguments=$1
    shift
    # shellcheck disable=SC2016  # for the shell on the machine
    as_user "set -e; "'log=$(mktemp)
        '"$entrypoint $arguments"' --quiet 0 >"$log" & server=$!
        for _ in 0 1 2 3 4 5 6 7 8 9; do grep -q : "$log" || sleep 0.3; done
        port=$(sed -n "s/^Listening on 0.0.0.0://p" "$log")
        [ -n "$port" ] || { kill $server; exit 1; }
        clients/simple-client.py -n 5 --time-scale 0.05 127.0.0.1 "$port" >/dev/null 2>&1 ||
            { kill $server; exit 1; }
        kill $server; wait $server; rm "$log"' "$@" </dev/null
}

# shellcheck disable=SC2016  # for the shell on the machine
"$@" sh -c 'test -f /etc/debian_version && test "$(id -u)" = 0' ||
    die 'needs a Debian, and root on it' 2
[ $# -gt 0 ] || [ -n "${DOCKERFILE_CHECK_HERE-}" ] ||
    die 'this changes the machine it runs on: set DOCKERFILE_CHECK_HERE=1 to allow that' 2

# A line that ends in a backslash continues in the next one.
instructions=$(sed -e ':again' -e '/\\$/{N;s/\\\n//;b again' -e '}' -e '/^#/d; /^$/d' \
    "$dockerfile")
while read -r name rest <&3; do
    echo "$name $rest"
    instruction "$name" "$rest" "$@" || die "failed: $name $rest"
done 3<<END
$instructions
END

# shellcheck disable=SC2016
as_user 'test "$(id -u)" != 0' "$@" || die 'a container would run as root'
[ -n "$entrypoint" ] || die 'no ENTRYPOINT'
for step in "$command" $(CDPATH='' cd "$top" && echo step*_*); do
    try_server "$step" "$@" || die "$entrypoint $step does not serve"
    echo "ok    $entrypoint $step"
done
as_user "$entrypoint no_such_step" "$@" </dev/null >/dev/null 2>&1
[ $? = 2 ] || die "$entrypoint no_such_step should be a usage error"
echo "ok    $entrypoint reports a step that does not exist"
