#!/usr/bin/env bash
# Builds the container image as a file, without a registry and without a container runtime.
#
# Out: target/image/PROFILE/plainroute.tar, which `ctr -n k8s.io images import`, `docker load`, `podman load` and
# `skopeo copy oci-archive:` take, and beside it plainroute.cdx.json, its bill of materials. The image holds the
# static binaries (the agent, and the CNI plugin that it puts onto nodes), that bill and the licence, and nothing else.
# The same commit gives the same bytes.
#
#   IMAGE_PROFILE=release   cargo's profile; `dev` is built in a fraction of the time, for tests
#   IMAGE_NAME=plainroute.dev/plainroute:VERSION
#   IMAGE_OUT=target/image/PROFILE
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
  echo "image: $*" >&2
  exit 1
}

machine=$(uname -m)
case $machine in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) die "no image is built on $machine; x86_64 and aarch64 are known" ;;
esac
target=$machine-unknown-linux-musl
profile=${IMAGE_PROFILE:-release}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=${IMAGE_NAME:-plainroute.dev/plainroute:$version}
[[ $name == *:* ]] || die "IMAGE_NAME=$name has no tag; write NAME:TAG"
build=${CARGO_TARGET_DIR:-target}
out=${IMAGE_OUT:-$build/image/$profile}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

command -v musl-gcc >/dev/null || die "musl-gcc is missing; run make setup, or: apt-get install musl-tools"
[ -d "$(rustc --print target-libdir --target "$target")" ] ||
  die "Rust's $target is missing; run make setup, or: rustup target add $target"

# Paths of this machine are no part of the binary, so that others can build the same one.
flags=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_RUSTFLAGS
export "$flags=--remap-path-prefix=$PWD=/plainroute --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
cargo build --locked --profile "$profile" --target "$target" \
  --package plainroute-agent --bin plainroute --package plainroute-ipam --bin plainroute-ipam
built=$build/$target/${profile/#dev/debug}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root layout=$work/layout
mkdir -p "$root/usr/bin" "$root/usr/share/doc/plainroute" "$layout/blobs/sha256" "$out"
for binary in plainroute plainroute-ipam; do strip --strip-debug -o "$root/usr/bin/$binary" "$built/$binary"; done
scripts/sbom.sh "$target" plainroute-agent plainroute-ipam >"$work/plainroute.cdx.json"
cp "$work/plainroute.cdx.json" LICENSE "$root/usr/share/doc/plainroute/"
chmod -R u=rwX,go=rX "$root"

# pack DIRECTORY: a tar of it on standard output that tells nothing of who made it, when and where.
pack() {
  local top
  mapfile -t top < <(LC_ALL=C ls -A "$1")
  tar --create --directory="$1" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner "${top[@]}"
}

# blob FILE: moves it to where its digest says, and prints that digest.
blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  mv "$1" "$layout/blobs/sha256/$digest"
  echo "$digest"
}

size() { stat --format=%s "$layout/blobs/sha256/$1"; }

pack "$root" >"$work/layer.tar"
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip --no-name "$work/layer.tar"
layer=$(blob "$work/layer.tar.gz")

created=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
labels=$(jq -n --arg version "$version" --arg revision "$revision" --arg created "$created" '{
  "org.opencontainers.image.title": "Plainroute",
  "org.opencontainers.image.description": "Kubernetes Pods, reachable by plain routing: the agent and its command line",
  "org.opencontainers.image.licenses": "Apache-2.0",
  "org.opencontainers.image.version": $version,
  "org.opencontainers.image.revision": $revision,
  "org.opencontainers.image.created": $created
}')
jq -n --arg architecture "$architecture" --arg diff_id "sha256:$diff_id" --arg created "$created" --argjson labels "$labels" '{
  created: $created, architecture: $architecture, os: "linux",
  config: { Entrypoint: ["/usr/bin/plainroute"], Env: ["PATH=/usr/bin"], WorkingDir: "/", Labels: $labels },
  rootfs: { type: "layers", diff_ids: [$diff_id] },
  history: [{ created: $created, created_by: "scripts/image.sh" }]
}' >"$work/config.json"
config=$(blob "$work/config.json")

jq -n --arg layer "$layer" --argjson layer_size "$(size "$layer")" \
  --arg config "$config" --argjson config_size "$(size "$config")" --argjson labels "$labels" '{
  schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
  config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: "sha256:\($config)", size: $config_size },
  layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: "sha256:\($layer)", size: $layer_size }],
  annotations: $labels
}' >"$work/manifest.json"
manifest=$(blob "$work/manifest.json")

echo '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
jq -n --arg manifest "$manifest" --argjson size "$(size "$manifest")" --arg architecture "$architecture" --arg name "$name" '{
  schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
  manifests: [{
    mediaType: "application/vnd.oci.image.manifest.v1+json", digest: "sha256:\($manifest)", size: $size,
    platform: { architecture: $architecture, os: "linux" },
    annotations: { "io.containerd.image.name": $name, "org.opencontainers.image.ref.name": ($name | split(":") | last) }
  }]
}' >"$layout/index.json"
# What `docker load` reads where it does not know OCI layouts.
jq -n --arg config "$config" --arg layer "$layer" --arg name "$name" \
  '[{ Config: "blobs/sha256/\($config)", RepoTags: [$name], Layers: ["blobs/sha256/\($layer)"] }]' >"$layout/manifest.json"

pack "$layout" >"$work/image.tar"
mv "$work/plainroute.cdx.json" "$out/"
mv "$work/image.tar" "$out/plainroute.tar"
echo "image: $name, $profile, $(stat --format=%s "$out/plainroute.tar") bytes, sha256:$manifest"
echo "image: $out/plainroute.tar"
