#!/usr/bin/env bash
# Runs each fuzz target of the wire formats for a number of seconds (default 60), from the checked-in corpus.
#
# The stable compiler does: the flags below are what cargo-fuzz would pass, less the address sanitizer, which needs
# nightly and has little to find in crates without `unsafe`.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Ccodegen-units=1 -Cdebug-assertions"
target=$(rustc -vV | sed -n 's/^host: //p')
for crate in bgp/proto bgp/bfd bgp/ra; do
  for source in "$crate"/fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    printf '== %s %s for %s s\n' "$crate" "$name" "$seconds"
    # What a run finds goes to a corpus of its own, so that the checked-in one stays what it is.
    found="$crate/fuzz/target/corpus/$name"
    mkdir -p "$found" "$crate/fuzz/artifacts"
    seeds="$crate/fuzz/corpus/$name"
    [ -d "$seeds" ] || seeds=
    cargo run --quiet --locked --release --target "$target" --manifest-path "$crate/fuzz/Cargo.toml" --bin "$name" -- \
      -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$crate/fuzz/artifacts/$name-" \
      "$found" ${seeds:+"$seeds"} 2>&1 | grep -E '^(stat::|SUMMARY|==|artifact)|panicked|ERROR|Done'
  done
done
