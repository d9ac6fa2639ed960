#!/usr/bin/env bash
# Runs each fuzz target of bgp/proto for a number of seconds (default 60), starting from the checked-in corpus.
set -euo pipefail
cd "$(dirname "$0")/../bgp/proto"
seconds=${1:-60}
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for target in $(cargo fuzz list); do
  printf '== %s for %s s\n' "$target" "$seconds"
  # libFuzzer's coverage flags are nightly's; RUSTC_BOOTSTRAP lets the stable compiler take them.
  RUSTC_BOOTSTRAP=1 cargo fuzz run "$target" -- -max_total_time="$seconds" -print_final_stats=1
done
