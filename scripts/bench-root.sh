#!/usr/bin/env bash
# Prints the directory of a Debian trixie root with newer routers for the bench, after making it if it is missing.
#
# Made by debootstrap, once per machine, in the user's cache; a change of this script is another directory. The
# routers are unpacked, not installed: nothing of theirs is to be configured or started there. BIRD 2 and 3 share their
# paths, so BIRD 2 is in opt/bird2. Progress goes to standard error.
set -euo pipefail

suite=trixie
packages='bird3 frr gobgpd openbgpd'
beside=bird2

say() { echo "bench-root: $*" >&2; }
die() {
    say "$*"
    exit 1
}

failed() {
    tail -n 5 "$root.log" >&2
    die "$1 failed; the whole output is in $root.log"
}

unpack() {
    chroot "$root" apt-get install --yes --no-install-recommends --download-only "$@"
    local package user
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
    (cd "$root/tmp" && chroot "$root" sh -c "cd /tmp && apt-get download $beside")
    dpkg -x "$root"/tmp/"$beside"_*.deb "$root/opt/$beside"
    rm "$root"/var/cache/apt/archives/*.deb "$root"/tmp/"$beside"_*.deb
    chroot "$root" ldconfig
    # What their packages' scripts would have made.
    for user in frr _bgpd _openbgpd; do chroot "$root" useradd --system --home-dir /run/openbgpd "$user"; done
    chroot "$root" groupadd --system --users frr frrvty
    mkdir -p "$root/run/openbgpd" "$root/run/frr" "$root/var/lib/frr"
}

hash=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/plainroute"
root="$cache/bench-$suite-$hash"

if [ ! -e "$root/.complete" ]; then
    [ "$(id -u)" -eq 0 ] || die "root is needed to make $root"
    command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
    mkdir -p "$cache"
    exec 9>"$root.lock"
    flock 9
    if [ ! -e "$root/.complete" ]; then
        mirror=${BENCH_MIRROR:-http://deb.debian.org/debian}
        say "making a $suite root with $packages: takes a minute or two, once on this machine"
        rm -rf "$root"
        debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log" 2>&1 || failed "debootstrap"
        # shellcheck disable=SC2086 # a list
        unpack $packages >>"$root.log" 2>&1 || failed "unpacking $packages"
        rm "$root.log"
        touch "$root/.complete"
    fi
fi
echo "$root"
