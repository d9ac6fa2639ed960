#!/usr/bin/env bash
# Prints a directory with the CNI plugin ptp of a release that knows all of the specification, after building it if it is
# missing: once per machine, into the user's cache. Debian's is older. Where CNI_PLUGINS is set, that directory is used
# instead. Progress goes to standard error.
set -euo pipefail

version=v1.9.1

die() {
    echo "cni-plugins: $*" >&2
    exit 1
}

if [ -n "${CNI_PLUGINS:-}" ]; then
    [ -x "$CNI_PLUGINS/ptp" ] || die "CNI_PLUGINS=$CNI_PLUGINS has no ptp; unset the variable to have it built"
    echo "$CNI_PLUGINS"
    exit
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/plainroute/cni-plugins-$version"
if [ ! -x "$cache/ptp" ]; then
    command -v go >/dev/null || die "building ptp needs Go: https://go.dev/dl, or set CNI_PLUGINS to a directory that has it"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    if [ ! -x "$cache/ptp" ]; then
        echo "cni-plugins: building ptp $version: takes some seconds, once on this machine" >&2
        GOBIN="$cache/.built" CGO_ENABLED=0 nice -n 5 go install -trimpath -ldflags "-s -w" \
            "github.com/containernetworking/plugins/plugins/main/ptp@$version" >"$cache/log" 2>&1 || {
            tail -n 20 "$cache/log" >&2
            die "building ptp $version failed; the whole output is in $cache/log"
        }
        mv "$cache/.built/ptp" "$cache/ptp"
        rm -r "$cache/.built" "$cache/log"
    fi
fi
echo "$cache"
