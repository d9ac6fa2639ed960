#!/usr/bin/env bash
# Prints the path of helm, after building it if it is missing: once per machine, into the user's cache. Where HELM is
# set, that is used instead. Progress goes to standard error.
set -euo pipefail

version=v3.21.4
# The release that charts are rendered for unless they are told otherwise.
kubernetes=1.36

die() {
    echo "helm: $*" >&2
    exit 1
}

if [ -n "${HELM:-}" ]; then
    command -v "$HELM" >/dev/null || die "HELM=$HELM is no program; unset the variable to have it built"
    echo "$HELM"
    exit
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/plainroute/helm-$version-$kubernetes"
if [ ! -x "$cache/helm" ]; then
    command -v go >/dev/null || die "building it needs Go: https://go.dev/dl, or set HELM to a helm of version 3"
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    if [ ! -x "$cache/helm" ]; then
        echo "helm: building $version: takes a minute or two, once on this machine" >&2
        package=helm.sh/helm/v3
        ldflags="-s -w -X $package/internal/version.version=$version"
        for place in pkg/chartutil pkg/lint/rules; do
            ldflags+=" -X $package/$place.k8sVersionMajor=${kubernetes%.*} -X $package/$place.k8sVersionMinor=${kubernetes#*.}"
        done
        GOBIN="$cache/.built" CGO_ENABLED=0 nice -n 5 go install -trimpath -ldflags "$ldflags" "$package/cmd/helm@$version" \
            >"$cache/log" 2>&1 || {
            tail -n 20 "$cache/log" >&2
            die "building $version failed; the whole output is in $cache/log"
        }
        mv "$cache/.built/helm" "$cache/helm"
        rm -r "$cache/.built" "$cache/log"
    fi
fi
echo "$cache/helm"
