#!/usr/bin/env bash
# Builds release and measures: everything, into docs/benchmarks.md; or, with arguments, what `plainroute-bench run --help`
# says of them. Goes on without the newer routers where their root cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p plainroute-bench
newer=$(scripts/bench-root.sh) || echo "bench: going on without the newer routers" >&2
[ $# -gt 0 ] || set -- --write docs/benchmarks.md
exec "${CARGO_TARGET_DIR:-target}/release/plainroute-bench" run ${newer:+--newer "$newer"} "$@"
