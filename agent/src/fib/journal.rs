//! The log: one line for each transition, naming prefix, table and where the route leads.
use std::sync::Arc;

use super::{
    Desired, Installed, RouteStatus,
    kernel::{Change, Kernel},
};

/// A change that the kernel has accepted. Whether it is a repair: not the plain consequence of a new plan.
pub(super) fn changed(
    change: &Change,
    desired: &Desired,
    previous: &(Arc<Desired>, Arc<Installed>),
    kernel: &Kernel,
) -> bool {
    let key = change.key();
    let (before, installed) = previous;
    let target = desired.routes.get(&key);
    let unchanged = target.is_some() && before.routes.get(&key) == target;
    let stood = installed.routes.get(&key).is_some_and(RouteStatus::delivers);
    let (prefix, table) = (key.prefix, key.table);
    match change {
        Change::Add(route) if unchanged && stood => {
            tracing::warn!(%prefix, table, "route was gone, put back: {}", kernel.describe(route));
            true
        }
        Change::Replace(old, new) if unchanged && stood => {
            let (old, new) = (kernel.describe(old), kernel.describe(new));
            tracing::warn!(%prefix, table, "route was changed, put right: {new} instead of {old}");
            true
        }
        Change::Remove(route) => {
            tracing::info!(%prefix, table, "route removed: {}", kernel.describe(route));
            false
        }
        // Told by the transition of its status.
        Change::Add(_) | Change::Replace(..) => false,
    }
}

/// What became different for a route or an address.
pub(super) fn transitions(desired: &Desired, before: &Installed, now: &Installed) {
    for (key, status) in &now.routes {
        if before.routes.get(key) == Some(status) {
            continue;
        }
        let (prefix, table) = (key.prefix, key.table);
        let target = desired.routes.get(key).map(ToString::to_string).unwrap_or_default();
        if status.delivers() {
            tracing::info!(%prefix, table, "route {target}: {status}");
        } else {
            tracing::warn!(%prefix, table, "route {target}: {status}");
        }
    }
    for (address, delivery) in &now.delivery {
        match before.delivery.get(address) {
            Some(same) if same == delivery => {}
            Some(was) if was.delivers() && !delivery.delivers() => {
                tracing::warn!(%address, "no longer delivered: {delivery}");
            }
            Some(_) | None => tracing::info!(%address, "delivery: {delivery}"),
        }
    }
    if !now.stale.is_empty() && before.stale != now.stale {
        tracing::info!("{} routes of ours are not desired (yet)", now.stale.len());
    }
    if before.synced && before.default_gateways != now.default_gateways {
        let gateways = now.default_gateways.iter().map(|default| default.gateway.to_string());
        tracing::info!("default gateways: {}", gateways.collect::<Vec<_>>().join(", "));
    }
}
