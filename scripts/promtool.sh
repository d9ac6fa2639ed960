#!/usr/bin/env bash
# Prints the path of promtool, which checks the chart's alerts. Where it is not installed, it is taken out of Debian's
# package prometheus into the user's cache, once per machine: no server, no service, no root. Progress goes to standard
# error.
set -euo pipefail

die() {
    echo "promtool: $*" >&2
    exit 1
}

if command -v "${PROMTOOL:-promtool}"; then
    exit
fi
[ -z "${PROMTOOL:-}" ] || die "PROMTOOL=$PROMTOOL is no program; unset the variable to have it fetched"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/plainroute/promtool"
if [ ! -x "$cache/promtool" ]; then
    { command -v apt-get && command -v dpkg-deb; } >/dev/null || die "this is not Debian or one of its descendants; set PROMTOOL to a promtool of Prometheus 2 or later"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    if [ ! -x "$cache/promtool" ]; then
        echo "promtool: fetching Debian's package prometheus (19 MB), once on this machine" >&2
        fetched=$(mktemp -d "$cache/fetched.XXXXXX")
        trap 'rm -rf "$fetched"' EXIT
        (cd "$fetched" && apt-get download --quiet=2 -o APT::Sandbox::User=root prometheus) >"$cache/log" 2>&1 || {
            tail -n 5 "$cache/log" >&2
            die "the package cannot be fetched; is a Debian mirror reachable, and apt-get update done?"
        }
        dpkg-deb --fsys-tarfile "$fetched"/prometheus_*.deb | tar -x -C "$fetched" ./usr/bin/promtool
        mv "$fetched/usr/bin/promtool" "$cache/promtool"
        rm "$cache/log"
    fi
fi
echo "$cache/promtool"
