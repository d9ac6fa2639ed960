#!/usr/bin/env bash
# Every test. Suites that need real routers, a real kernel or a real Kubernetes run in network namespaces of
# their own and mostly wait, so they run more at a time than there are cores.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_BACKTRACE=1
cargo build --locked --workspace --all-targets
IMAGE_PROFILE=dev scripts/image.sh
cargo test --locked --workspace --exclude plainroute-tests
cargo test --locked -p plainroute-tests -- --test-threads="${TEST_THREADS:-6}"
