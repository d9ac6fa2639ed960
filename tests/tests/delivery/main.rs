//! What a cluster is given: the Helm chart and the manifests rendered from it, taken by a real API server, and an agent
//! under exactly the rules that they grant it.
//!
//! Needs helm and promtool, which `scripts/helm.sh` and `scripts/promtool.sh` get, and `plainroute` built beside the tests:
//! `cargo build -p plainroute-agent`.

mod admission;
mod api;
mod chart;
mod fenced;
mod grants;
mod kubectl;
mod pools;
