#!/usr/bin/env bash
# Installs what building, testing and the labs need and this machine lacks. Safe to run again: when nothing
# is missing it changes nothing, needs no root and takes a moment.
#
#   scripts/setup.sh [--without-cluster]    the labs need no programs of Kubernetes, which take minutes to build
set -euo pipefail

# Packages, and the services that the routing daemons among them would start: the tests run those daemons
# themselves, inside network namespaces, and the machine's own must stay as its owner wants them.
packages=(frr bird2 gobgpd exabgp openbgpd pmacct iproute2 iptables nftables tcpdump iputils-ping procps curl jq conntrack
    containerd runc containernetworking-plugins busybox-static musl-tools)
# What has a package's programs as well, and would have to go for it.
declare -A instead_of=([containerd]=containerd.io [runc]=containerd.io)
declare -A service_of=([frr]=frr [bird2]=bird [gobgpd]=gobgpd [exabgp]=exabgp [openbgpd]="openbgpd bgplgd"
    [pmacct]="pmacctd nfacctd sfacctd uacctd" [containerd]=containerd)
# Of Kubernetes, which Debian does not have.
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl)

say() { echo "setup: $*"; }
die() {
    echo "setup: $*" >&2
    exit 1
}

installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
    command -v apt-get >/dev/null ||
        die "this is not Debian or one of its descendants; install what matches these packages yourself: ${packages[*]}"
    local package missing=()
    for package in "${packages[@]}"; do
        installed "$package" || installed "${instead_of[$package]:-$package}" || missing+=("$package")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "packages: all there"
        return
    fi
    [ "$(id -u)" -eq 0 ] ||
        die "root is needed to install packages; run this again as root, or: sudo apt-get install ${missing[*]}"

    say "packages: installing ${missing[*]}"
    # Debian starts a daemon as soon as it is installed, unless this file says no.
    local policy=/usr/sbin/policy-rc.d ours=
    if [ ! -e "$policy" ]; then
        ours=$policy
        # shellcheck disable=SC2064 # $ours is local: it has to be read now
        trap "rm -f '$ours'" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update failed; is a Debian mirror reachable?"
    apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get install failed; its messages are above"
    [ -z "$ours" ] || rm -f "$ours"

    local service
    for package in "${missing[@]}"; do
        for service in ${service_of[$package]:-}; do keep_off "$service"; done
    done
}

# Neither running now nor started at the next boot. Only for what was installed a moment ago.
keep_off() {
    if [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now "$1" || die "the service $1 cannot be disabled"
    elif [ -x "/etc/init.d/$1" ]; then
        "/etc/init.d/$1" stop >/dev/null 2>&1 || true
        update-rc.d "$1" disable >/dev/null || die "the service $1 cannot be disabled"
    fi
    say "service $1: not running, not started at boot"
}

install_rust_components() {
    command -v cargo >/dev/null || die "cargo is missing; install Rust by https://rustup.rs"
    local component missing=()
    for component in rustfmt clippy; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || missing+=("$component")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        say "rust: $(cargo --version), rustfmt and clippy"
    elif command -v rustup >/dev/null; then
        rustup component add "${missing[@]}"
    else
        die "cargo is not from rustup, and ${missing[*]} is missing; install it from where cargo came from"
    fi
    # For the image, whose binary is static.
    local target
    target=$(uname -m)-unknown-linux-musl
    if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
        command -v rustup >/dev/null || die "Rust's $target is missing; install it from where cargo came from"
        rustup target add "$target"
    fi
    say "rust: $target"
}

build_test_cluster() {
    local directory
    directory=$("$(dirname "${BASH_SOURCE[0]}")/kubelab.sh" "${programs[@]}") || exit 1
    say "test cluster: ${programs[*]} in $directory"
}

build_helm() {
    say "helm: $("$(dirname "${BASH_SOURCE[0]}")/helm.sh")"
}

build_ptp() {
    say "ptp: $("$(dirname "${BASH_SOURCE[0]}")/cni-plugins.sh")"
}

fetch_promtool() {
    local program
    program=$("$(dirname "${BASH_SOURCE[0]}")/promtool.sh") || exit 1
    say "promtool: $program"
}

case ${1:-} in
"" | --without-cluster) ;;
*) die "$1 is not known; the only argument is --without-cluster" ;;
esac
install_packages
install_rust_components
if [ $# -eq 0 ]; then
    build_test_cluster
    build_helm
    build_ptp
fi
say "done"
