#!/bin/sh
# Checks that this machine has what a make target needs, and installs what is missing.
#
#   setup.sh build [STEP...]   to build and run these steps, or all of them: a C compiler, make
#                              and Python; for step 7 libuv
#   setup.sh check [STEP...]   to test them as well: cmocka
#   setup.sh watch             to try what the READMEs suggest: strace, nc
#   setup.sh full              every optional tool: analysers, sanitizers, a second libc, ...
#   setup.sh cross             to build the servers for arm64 and i686, and run them
#                              (on Debian only, whose packages for arm64 it adds)
#
# Prints nothing when all is there. Otherwise it says what is missing and which command installs
# it, and runs that command. With NO_INSTALL=1 it does not run it, and fails. CC is respected.
set -eu

# groups: those that need the tool.
# tool: a command, or a library where it begins with "lib" (pkg-config is asked for those).
# Several packages are joined by commas; "-" means that the package manager has none.
TOOLS='
# groups     tool          apt-get                dnf                 apk                pacman          brew
build        cc            gcc,libc6-dev          gcc                 gcc,musl-dev       gcc             -
build        make          make                   make                make               make            make
step7,check  pkg-config    pkg-config             pkgconf-pkg-config  pkgconf            pkgconf         pkgconf
step7        libuv         libuv1-dev             libuv-devel         libuv-dev          libuv           libuv
build        python3       python3                python3             python3            python          python3
check        libcmocka     libcmocka-dev          libcmocka-devel     cmocka-dev         cmocka          cmocka
watch,full   strace        strace                 strace              strace             strace          -
watch,full   nc            netcat-openbsd         nmap-ncat           netcat-openbsd     openbsd-netcat  netcat
full         bear          bear                   bear                -                  -               bear
full         clang         clang,libclang-rt-dev  clang,compiler-rt   clang,compiler-rt  clang           -
full         llvm-ar       llvm                   llvm                llvm               llvm            llvm
full         clang-tidy    clang-tidy             clang-tools-extra   clang-extra-tools  clang           llvm
full         clang-format  clang-format           clang-tools-extra   clang-extra-tools  clang           clang-format
full         cppcheck      cppcheck               cppcheck            cppcheck           cppcheck        cppcheck
full         shellcheck    shellcheck             ShellCheck          shellcheck         shellcheck      shellcheck
full         flake8        flake8                 python3-flake8      py3-flake8         flake8          flake8
full         valgrind      valgrind,libc6-dbg     valgrind            valgrind           valgrind        -
full         musl-gcc      musl-tools             musl-gcc            -                  musl            -
full         gnuplot       gnuplot-nox            gnuplot             gnuplot            gnuplot         gnuplot
full         node          nodejs                 nodejs              nodejs             nodejs          node
full         npm           npm                    nodejs-npm          npm                npm             -
full         chromium      chromium               chromium            chromium           chromium        -
full         redis-server  redis-server           redis               redis              redis           redis
full         haproxy       haproxy                haproxy             haproxy            haproxy         haproxy
full         ip            iproute2               iproute             iproute2           iproute2        -
full         libhiredis    libhiredis-dev         hiredis-devel       hiredis-dev        hiredis         hiredis
full         debootstrap   debootstrap,debian-archive-keyring debootstrap         debootstrap        debootstrap     -
full         buildah       buildah                buildah             buildah            buildah         -
cross        i686-linux-gnu-gcc gcc-i686-linux-gnu,libc6-dev-i386-cross - - - -
cross        qemu-aarch64  qemu-user              -                   -                  -               -
cross        aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu - - - -
cross        arm64-libs    libc6-dev:arm64,libcmocka-dev:arm64,libuv1-dev:arm64,liburing-dev:arm64 - - - -
full         liburing      liburing-dev           liburing-devel      liburing-dev       liburing        -
'

die() {
    echo "setup: $1" >&2
    exit "${2-1}"
}

have() {
    case $1 in
    cc) echo '#include <stdio.h>' | ${CC:-cc} -E - >/dev/null 2>&1 ;; # a compiler may lack libc
    libcmocka) ${PKG_CONFIG:-pkg-config} --exists cmocka 2>/dev/null ;;
    libhiredis) ${PKG_CONFIG:-pkg-config} --exists hiredis 2>/dev/null ;;
    arm64-libs) PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig \
        ${PKG_CONFIG:-pkg-config} --exists cmocka libuv 2>/dev/null ;;
    lib*) ${PKG_CONFIG:-pkg-config} --exists "$1" 2>/dev/null ;;
    pkg-config) command -v "${PKG_CONFIG:-pkg-config}" >/dev/null ;;
    haproxy | ip | debootstrap) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;; # users may lack these
    make) command -v make >/dev/null || command -v gmake >/dev/null ;;
    python3) python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# Is one of these groups wanted?
wanted() { # GROUP,GROUP...
    for group in $groups; do
        case ",$1," in *",$group,"*) return 0 ;; esac
    done
    return 1
}

# Sets missing to the tools of the wanted groups that are absent, packages to what to install, and
# unknown to the tools that the package manager does not have.
look_around() {
    missing='' packages='' unknown=''
    while read -r of tool apt dnf apk pacman brew; do
        wanted "$of" || continue
        have "$tool" && continue
        case $manager in
        apt-get) package=$apt ;;
        dnf) package=$dnf ;;
        apk) package=$apk ;;
        pacman) package=$pacman ;;
        brew) package=$brew ;;
        *) package=- ;;
        esac
        case $tool in
        cc) tool="a C compiler (${CC:-cc})" ;;
        python3) tool='python3 (3.8 or newer)' ;;
        esac
        missing="$missing${missing:+, }$tool"
        if [ "$package" = - ]; then
            unknown="$unknown${unknown:+, }$tool"
        else
            packages="$packages $(echo "$package" | tr , ' ')"
        fi
    done <<END
$TOOLS
END
}

usage='usage: common/build-aux/setup.sh build|check [STEP...], or watch, full or cross'
group=${1-}
[ $# = 0 ] || shift
case $group in
build) groups='build' ;;
check) groups='build check' ;;
watch) groups='build step7 watch' ;;
full) groups='build step7 check watch full' ;;
cross) groups='build step7 cross' ;;
*) die "$usage" 2 ;;
esac
case $group:$# in
build:0 | check:0) groups="$groups step7" ;;
watch:0 | full:0 | cross:0) ;;
build:* | check:*)
    for step in "$@"; do
        case $step in *[!0-9]* | '') die "$usage" 2 ;; esac
        groups="$groups step$step"
    done
    ;;
*) die "$usage" 2 ;;
esac

if [ "$group" = cross ] && ! grep -qs '^ID=debian' "${OS_RELEASE:-/etc/os-release}"; then
    echo 'setup: cross is for Debian only' >&2
    exit 0
fi

manager=''
for candidate in apt-get dnf apk pacman brew; do
    if command -v $candidate >/dev/null; then
        manager=$candidate
        break
    fi
done

look_around
[ -n "$missing" ] || exit 0
echo "setup: missing on this machine: $missing" >&2

# Where an optional tool cannot be installed, the programs that use it say what they skip.
if [ -n "$unknown" ]; then
    case $manager in
    '') die 'found none of apt-get, dnf, apk, pacman and brew: please install them by hand' ;;
    brew) hint='; the compiler comes with: xcode-select --install' ;;
    *) hint='' ;;
    esac
    echo "setup: $manager does not offer: $unknown$hint" >&2
    case $unknown in *'C compiler'*) exit 1 ;; esac
    [ -n "$packages" ] || exit 0
fi

sudo=''
[ "$manager" = brew ] || [ "$(id -u)" = 0 ] || sudo='sudo '
case $manager in
apt-get)
    apt="${sudo}env DEBIAN_FRONTEND=noninteractive apt-get -qq"
    foreign=''
    case $packages in *:arm64*) foreign="${sudo}dpkg --add-architecture arm64 && " ;; esac
    install="$foreign$apt update && $apt install -y --no-install-recommends$packages"
    ;;
dnf) install="${sudo}dnf install -q -y$packages" ;;
apk) install="${sudo}apk add -q$packages" ;;
pacman) install="${sudo}pacman -Sy --noconfirm --needed$packages" ;;
brew) install="brew install -q$packages" ;;
esac
echo "setup: to install it: $install" >&2

[ "${NO_INSTALL:-0}" = 0 ] || die 'not installing it, because NO_INSTALL is set'
if [ -n "$sudo" ] && ! command -v sudo >/dev/null; then
    die 'cannot: this is not root and there is no sudo; please run that command as root'
fi
echo 'setup: installing it, which may take a minute ...' >&2
eval "$install" </dev/null >/dev/null || die "that failed; please install by hand: $missing"

missing_before=$missing
look_around
[ -z "$missing" ] || [ "$missing" = "$unknown" ] || die "still missing after that: $missing"
echo "setup: installed: $missing_before" >&2
