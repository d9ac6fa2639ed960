#!/usr/bin/env bash
# Builds release and measures: everything, into docs/benchmarks.md; or, with arguments, what `plainroute-bench run --help`
# says of them. Goes on without the newer routers where their root cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
# The rows with Kubernetes need an API server, which `make setup` has built; who calls this script alone may not have it.
kubernetes=()
if [ -n "${KUBEBUILDER_ASSETS:-}" ] ||
  compgen -G "${XDG_CACHE_HOME:-$HOME/.cache}/plainroute/kubelab-*/kube-apiserver" >/dev/null; then
  kubernetes=(--features plainroute-bench/kubernetes)
fi
cargo build --release --locked -p plainroute-bench -p plainroute-agent -p plainroute-ipam \
  --bin plainroute-bench --bin plainroute --bin plainroute-ipam "${kubernetes[@]}"
newer=$(scripts/bench-root.sh) || echo "bench: going on without the newer routers" >&2
[ $# -gt 0 ] || set -- --write docs/benchmarks.md
exec "${CARGO_TARGET_DIR:-target}/release/plainroute-bench" run ${newer:+--newer "$newer"} "$@"
