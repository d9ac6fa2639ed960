#!/usr/bin/env bash
# Rules of the house that no compiler checks. Each failing line names what to mend.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0
fail() { printf 'house rule: %s\n' "$1" >&2; status=1; }

# `unsafe` stands in one audited module only.
unsafe_files=$(git grep -lE '\bunsafe\b *(\{|fn|impl|extern)' -- '*.rs' || true)
[ "$(printf '%s\n' "$unsafe_files" | grep -vxF bgp/speaker/src/socket.rs | grep -c .)" -eq 0 ] ||
  fail "unsafe outside bgp/speaker/src/socket.rs: $unsafe_files"

# The cores read no clock, spawn nothing, lock nothing. What stands below #[cfg(test)] may.
for file in $(git ls-files 'bgp/proto/src/*.rs' 'bgp/bfd/src/*.rs' 'bgp/ra/src/*.rs' 'ipam/src/*.rs'); do
  if awk '/^#\[cfg\(test\)\]/ { exit } { print FILENAME ":" FNR ": " $0 }' "$file" |
    grep -E 'Instant::now|SystemTime::now|Timestamp::now|tokio::|std::thread|Mutex|RwLock' | grep -vE ': *//[/!]'; then
    fail "bgp/proto, bgp/bfd, bgp/ra and ipam are free of clocks, tasks, threads and locks"
  fi
done

# Dependencies point one way.
for crate in bgp/proto bgp/bfd bgp/ra ipam; do
  ! grep -nE '^(tokio|kube|k8s-openapi|rtnetlink|nix|libc|socket2)\b' "$crate/Cargo.toml" || fail "$crate knows nothing of tokio, Kubernetes or Linux"
done
for crate in bgp/proto bgp/bfd bgp/ra bgp/speaker config ipam; do
  ! grep -n 'plainroute-agent' "$crate/Cargo.toml" || fail "$crate must not know the agent"
done

# The CNI plugin is started for every Pod: it knows nothing but JSON.
if awk '/^\[dependencies\]/ { on = 1; next } /^\[/ { on = 0 } on && /^[a-z]/' cni/Cargo.toml | grep -vE '^serde(_json)?\.workspace'; then
  fail "cni depends on more than serde and serde_json"
fi

# Names that say nothing.
if git grep -nE '\b(struct|enum|trait) [A-Za-z]*(Manager|Helper|Handler|Util|Wrapper)\b' -- '*.rs'; then
  fail "a type has a name that says nothing"
fi

# Tests wait on conditions, not on the clock.
if git grep -nE 'thread::sleep|time::sleep\(' -- '*/tests/*.rs' 'tests/tests/**/*.rs'; then
  fail "a test sleeps instead of waiting on a condition with a deadline"
fi
exit $status
