# Functions that the scripts share; sourced, never run. Installs only what is missing.
# shellcheck shell=sh

if [ -t 2 ]; then BLUE=$(printf '\033[1;34m') RED=$(printf '\033[1;31m') PLAIN=$(printf '\033[0m')
else BLUE='' RED='' PLAIN=''
fi
say() { printf '%s==>%s %s\n' "$BLUE" "$PLAIN" "$*" >&2; }
fail() { printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2; exit 1; }

# Run as root: directly, or through sudo where that needs no password to be typed by a script.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else return 126
    fi
}

# missing_packages PACKAGE...: print those that are not installed.
missing_packages() {
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
            || printf '%s ' "$package"
    done
}

# install_packages PACKAGE...: install the missing ones without starting any service of theirs.
install_packages() {
    missing=$(missing_packages "$@")
    [ -z "$missing" ] && return 0
    command -v apt-get >/dev/null 2>&1 \
        || fail "needs these packages, and this is no Debian or Ubuntu: $missing"
    say "installing system packages: $missing"
    # A package must not start its service here: policy-rc.d is Debian's way to say so.
    guard=/usr/sbin/policy-rc.d
    made_guard=
    if ! [ -e "$guard" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null 2>&1 \
            || fail "may not install packages here; as root: apt-get install $missing"
        as_root chmod 755 "$guard"
        made_guard=yes
    fi
    status=0
    # shellcheck disable=SC2086  # the list is split on purpose
    as_root env DEBIAN_FRONTEND=noninteractive sh -c '
        apt-get update -q && apt-get install -q -y --no-install-recommends "$@"' sh $missing \
        >&2 || status=$?
    [ -n "$made_guard" ] && as_root rm -f "$guard"
    [ "$status" -eq 0 ] || fail "apt-get could not install: $missing"
}

# find_python: set PYTHON to a Python of at least 3.11 that can make a venv.
find_python() {
    for PYTHON in python3.13 python3.12 python3.11 python3; do
        command -v "$PYTHON" >/dev/null 2>&1 || continue
        "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return 0
    done
    install_packages python3 python3-venv
    PYTHON=python3
    "$PYTHON" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
        || fail "needs Python 3.11 or newer with the venv module"
}

# ensure_venv NAME: the virtual environment .venv holds what requirements/NAME.txt locks.
ensure_venv() {
    lock="$ROOT/requirements/$1.txt"
    stamp="$ROOT/.venv/.installed-$1"
    wanted=$(cat "$lock" "$ROOT"/*/pyproject.toml | cksum)
    if ! [ -x "$ROOT/.venv/bin/python" ]; then
        find_python
        say "making .venv with $($PYTHON --version)"
        "$PYTHON" -m venv "$ROOT/.venv"
    fi
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
    say "installing requirements/$1.txt into .venv"
    "$ROOT/.venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$lock" >&2
    "$ROOT/.venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-build-isolation \
        -e "$ROOT/exporters" -e "$ROOT/booking" -e "$ROOT/agent" >&2
    printf '%s\n' "$wanted" >"$stamp"
}

# find_program PACKAGE NAME...: print the path of the first NAME that is there; otherwise fetch
# Debian's PACKAGE and unpack it under .run/tools, which starts no service and needs no root.
find_program() {
    package=$1
    shift
    tools="$STATE/tools"
    for name in "$@"; do
        command -v "$name" 2>/dev/null && return 0
        [ -x "$tools/usr/bin/$name" ] && printf '%s\n' "$tools/usr/bin/$name" && return 0
    done
    command -v apt-get >/dev/null 2>&1 || fail "no $1 on the PATH, and no apt-get to fetch it"
    say "fetching $package into ${tools#"$ROOT/"} (nothing is installed on the system)"
    mkdir -p "$tools/deb"
    if ! (cd "$tools/deb" && apt-get download -q "$package" >&2); then
        as_root apt-get update -q >&2 || fail "cannot fetch $package: run apt-get update as root"
        (cd "$tools/deb" && apt-get download -q "$package" >&2) || fail "cannot fetch $package"
    fi
    dpkg -x "$tools/deb/${package}"_*.deb "$tools"
    for name in "$@"; do
        [ -x "$tools/usr/bin/$name" ] && printf '%s\n' "$tools/usr/bin/$name" && return 0
    done
    fail "package $package has none of: $*"
}
