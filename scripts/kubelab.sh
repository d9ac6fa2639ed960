#!/usr/bin/env bash
# Prints the directory that holds the test cluster's programs, after building those that are missing.
#
#   scripts/kubelab.sh [etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kubectl]...
#
# Default: etcd and kube-apiserver. They are built from the versions pinned in tests/kubelab/go.mod, once
# per machine, into the user's cache; a change of those pins is another directory. Where KUBEBUILDER_ASSETS
# is set, its programs are used instead and nothing is built. Progress goes to standard error.
set -euo pipefail

die() {
    echo "kubelab: $*" >&2
    exit 1
}
say() { echo "kubelab: $*" >&2; }

module=$(cd "$(dirname "${BASH_SOURCE[0]}")/../tests/kubelab" && pwd)
[ $# -gt 0 ] || set -- etcd kube-apiserver

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    for program; do
        [ -x "$KUBEBUILDER_ASSETS/$program" ] ||
            die "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no $program; put it there, or unset the variable to have it built"
    done
    echo "$KUBEBUILDER_ASSETS"
    exit
fi

version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$module/go.mod")
hash=$(cat "$module/go.mod" "$module/go.sum" | sha256sum | cut -c1-12)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/plainroute/kubelab-$hash"

main_of() {
    case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kubectl) echo "k8s.io/kubernetes/cmd/$1" ;;
    *) die "unknown program $1" ;;
    esac
}

# The API server reports these, and clients and kubelets compare them.
ldflags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    ldflags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
    ldflags+=" -X $package.gitTreeState=clean"
done

# build PROGRAM PACKAGE: go says nothing for minutes, so count the packages that it names as it compiles.
build() {
    local program=$1 package=$2 log="$cache/$1.log" started=$SECONDS
    say "building $program: takes minutes, once on this machine"
    if ! (cd "$module" && CGO_ENABLED=0 nice -n 5 go build -v -trimpath -ldflags "$ldflags" -o "$cache/.$program" "$package") 2>&1 |
        tee "$log" |
        awk -v program="$program" '/^go: downloading/ { next }
            ++count % 100 == 0 { print "kubelab:   " program ": " count " packages compiled" > "/dev/stderr" }'; then
        tail -n 20 "$log" >&2
        die "building $program failed; the whole output is in $log"
    fi
    mv "$cache/.$program" "$cache/$program"
    rm "$log"
    say "built $program in $((SECONDS - started)) s"
}

missing=()
for program; do
    main_of "$program" >/dev/null
    [ -x "$cache/$program" ] || missing+=("$program")
done

if [ ${#missing[@]} -gt 0 ]; then
    command -v go >/dev/null || die "building ${missing[*]} needs Go 1.26 or later: https://go.dev/dl, or set KUBEBUILDER_ASSETS to a directory that holds them"
    mkdir -p "$cache"
    # Two checkouts, or two test runs, must not build the same thing twice.
    exec 9>"$cache/.lock"
    flock --nonblock 9 || {
        say "another build is running; waiting for it"
        flock 9
    }
    for program in "${missing[@]}"; do
        [ -x "$cache/$program" ] || build "$program" "$(main_of "$program")"
    done
fi
echo "$cache"
