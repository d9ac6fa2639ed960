#!/usr/bin/env bash
# Prints the bill of materials (CycloneDX 1.6, JSON) of our binaries: every crate that is linked into one of them, and
# nothing that only built or tested them.
#
#   scripts/sbom.sh TARGET PACKAGE...
#
# The first package is what the bill is of; the others are among its components.
# What is linked is what cargo resolves for these packages and the target, less procedural macros and build dependencies;
# checksums are those of Cargo.lock. The same commit gives the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
shift
package=$1
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo tree --locked "${@/#/--package=}" --edges normal,no-proc-macro --target "$target" --prefix none --format '{p}' |
  awk 'NF { sub(/^v/, "", $2); print $1 " " $2 }' | sort -u | jq -R . | jq -s . >"$work/linked"
cargo metadata --locked --format-version 1 --filter-platform "$target" >"$work/metadata"
awk -F'"' '/^name =/ { name = $2 } /^version =/ { version = $2 } /^checksum =/ { print name " " version "\t" $2 }' \
  Cargo.lock | jq -R 'split("\t") | { (.[0]): .[1] }' | jq -s 'add' >"$work/checksums"

jq -n --sort-keys \
  --slurpfile linked "$work/linked" --slurpfile metadata "$work/metadata" --slurpfile checksums "$work/checksums" \
  --arg package "$package" --arg rust "$(rustc --version | cut -d' ' -f2)" --arg target "$target" \
  --arg time "$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" '
  ($linked[0] | map({ (.): true }) | add) as $is_linked
  | $metadata[0] as $metadata
  | [$metadata.packages[] | select($is_linked[.name + " " + .version])] as $packages
  | ($packages | map({ (.id): "\(.name)@\(.version)" }) | add) as $ref
  | def described: {
      type: "library", "bom-ref": $ref[.id], name, version,
      licenses: (if .license then [{ expression: (.license | gsub("/"; " OR ")) }] else null end),
      purl: (if .source then "pkg:cargo/\(.name)@\(.version)" else null end),
      hashes: ($checksums[0]["\(.name) \(.version)"] | if . then [{ alg: "SHA-256", content: . }] else null end),
      externalReferences: (if .repository then [{ type: "vcs", url: .repository }] else null end)
    } | with_entries(select(.value != null));
  ($packages | map(select(.name == $package))[0]) as $root
  | {
    bomFormat: "CycloneDX", specVersion: "1.6", version: 1,
    metadata: { timestamp: $time, component: ($root | described | .type = "application") },
    components: (
      ($packages | map(select(.id != $root.id) | described) | sort_by(.["bom-ref"]))
      + [{ type: "library", "bom-ref": "rust-std@\($rust)", name: "rust-std", version: $rust,
           description: "the Rust standard library for \($target), with the C library it brings",
           licenses: [{ expression: "MIT OR Apache-2.0" }] }]
    ),
    dependencies: [
      $metadata.resolve.nodes[] | select($ref[.id])
      | { ref: $ref[.id],
          dependsOn: ([.deps[] | select($ref[.pkg] and any(.dep_kinds[]; .kind == null)) | $ref[.pkg]] | unique) }
    ] | sort_by(.ref)
  }
  # A crate that cargo links and whose description is missing would be a hole in the list.
  | if (.components | length) == ($linked[0] | length) then . else error("not every linked crate is described") end'
