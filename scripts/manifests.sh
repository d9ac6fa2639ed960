#!/usr/bin/env bash
# Renders the chart with its default values as plain manifests, for those who do not run Helm: DIRECTORY/manifests to be
# applied, DIRECTORY/rbac to be read by whoever grants it. Without a DIRECTORY they are the checked-in ones, in config/.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-config}
namespace=plainroute-system
helm=$(scripts/helm.sh)
mkdir -p "$out/manifests" "$out/rbac"

# render ARGUMENT...: with a note of where it comes from, and without the labels that say that Helm installed it.
render() {
  echo "# Rendered from config/helm/plainroute by make manifests: change that."
  "$helm" template plainroute config/helm/plainroute --namespace "$namespace" "$@" |
    sed -e '/^ *helm.sh\/chart:/d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d'
}

cat >"$out/manifests/namespace.yaml" <<YAML
# Rendered by make manifests.
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    app.kubernetes.io/part-of: plainroute
    # The agent runs in the node's network namespace and keeps its state on the node.
    pod-security.kubernetes.io/enforce: privileged
YAML
render >"$out/manifests/plainroute.yaml"
render --show-only templates/rbac.yaml >"$out/rbac/rbac.yaml"
render --show-only templates/admission.yaml >"$out/rbac/admission.yaml"
