//! The log: one line for each transition, naming prefix, table and where the route leads; a number where many come at once.
use std::sync::Arc;

use super::{
    Desired, Installed, RouteKey, RouteStatus,
    kernel::{Change, Kernel},
};

/// More of one sort than this are logged as a number.
const LOGGED: usize = 20;

/// What the kernel has accepted in one pass.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    repaired: Vec<String>,
    removed: Vec<String>,
    /// How many there were, of which the first are kept.
    counts: (usize, usize),
}

impl Accepted {
    /// Takes a change. Whether it is a repair: not the plain consequence of a new plan.
    pub(super) fn take(
        &mut self,
        change: &Change,
        desired: &Desired,
        previous: &(Arc<Desired>, Arc<Installed>),
        kernel: &Kernel,
    ) -> bool {
        let key = change.key();
        let (before, installed) = previous;
        let undone = || {
            let wanted = before.routes.get(&key);
            wanted.is_some()
                && wanted == desired.routes.get(&key)
                && installed.routes.get(&key).is_some_and(RouteStatus::delivers)
        };
        let note = |lines: &mut Vec<String>, line: &dyn Fn() -> String| {
            if lines.len() < LOGGED {
                lines.push(line());
            }
        };
        match change {
            Change::Add(route) if undone() => {
                note(&mut self.repaired, &|| {
                    format!("route {key} was gone, put back: {}", kernel.describe(route))
                });
            }
            Change::Replace(old, new) if undone() => {
                let line = || {
                    let (old, new) = (kernel.describe(old), kernel.describe(new));
                    format!("route {key} was changed, put right: {new} instead of {old}")
                };
                note(&mut self.repaired, &line);
            }
            Change::Remove(route) => {
                self.counts.1 += 1;
                note(&mut self.removed, &|| format!("route {key} removed: {}", kernel.describe(route)));
                return false;
            }
            // Told by the transition of its status.
            Change::Add(_) | Change::Replace(..) => return false,
        }
        self.counts.0 += 1;
        true
    }

    /// Writes it down.
    pub(super) fn tell(self) {
        let (repaired, removed) = self.counts;
        if repaired > LOGGED {
            tracing::warn!(repaired, "routes were gone or changed, put right");
        } else {
            self.repaired.iter().for_each(|line| tracing::warn!("{line}"));
        }
        if removed > LOGGED {
            tracing::info!(removed, "routes removed");
        } else {
            self.removed.iter().for_each(|line| tracing::info!("{line}"));
        }
    }
}

/// What became different for a route or an address.
pub(super) fn transitions(desired: &Desired, before: &Installed, now: &Installed) {
    let changed = |delivers: bool| {
        let changed = now.routes.iter().filter(move |(_, status)| status.delivers() == delivers);
        changed.filter(|(key, status)| before.routes.get(key) != Some(status))
    };
    for delivers in [true, false] {
        let count = changed(delivers).count();
        match (count > LOGGED, delivers) {
            (true, true) => tracing::info!(routes = count, "routes installed"),
            (true, false) => {
                // One of them as an example of what is wrong.
                let (key, status) = changed(delivers)
                    .next()
                    .map_or_else(Default::default, |(key, status)| (key.to_string(), status.to_string()));
                tracing::warn!(routes = count, "routes that do not deliver; the first: {key}: {status}");
            }
            (false, _) => {
                changed(delivers).for_each(|(key, status)| transition(*key, status, desired));
            }
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

fn transition(key: RouteKey, status: &RouteStatus, desired: &Desired) {
    let (prefix, table) = (key.prefix, key.table);
    let target = desired.routes.get(&key).map(ToString::to_string).unwrap_or_default();
    if status.delivers() {
        tracing::info!(%prefix, table, "route {target}: {status}");
    } else {
        tracing::warn!(%prefix, table, "route {target}: {status}");
    }
}
