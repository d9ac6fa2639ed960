#!/usr/bin/env bash
# What an agent costs in a cluster of 5,000 nodes: the release agent, 20 of them, beside a real API server that holds
# 100,000 Pods. Takes about five minutes and 4 GB of memory. PLAINROUTE=PATH measures another binary.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PLAINROUTE:-}" ]; then
    cargo build --locked --release --package plainroute-agent
    export PLAINROUTE=$PWD/target/release/plainroute
fi
export PLAINROUTE_SCALE=full
cargo test --locked --package plainroute-tests --test scale -- --nocapture
