//! The rows of the table, by letter.
#[cfg(feature = "kubernetes")]
pub(crate) mod addresses;
pub(crate) mod announce;
pub(crate) mod change;
pub(crate) mod idle;
pub(crate) mod install;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod pod_event;
pub(crate) mod silence;
pub(crate) mod take_in;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::routers::{Product, Router, Task};
use crate::session::Session;
use crate::site::{Site, author, host};
use crate::wire::{self, Family};

/// How long the slowest of all may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A router with the feeder and the observer connected.
pub(crate) struct Fed {
    // In this order: the sessions go before the router, and that before its namespaces.
    pub(crate) feeder: Session,
    observer: Session,
    pub(crate) router: Router,
}

impl Fed {
    /// Starts it.
    pub(crate) fn start(product: &Product, site: &Site, family: Family, task: Task) -> Result<Fed> {
        let router = product.start(&site.contestant, family, task)?;
        let connect = |number: u8| {
            Session::connect(site, family, number)
                .with_context(|| format!("{}; its log ends with:\n{}", product.label, router.log()))
        };
        let (feeder, observer) = (connect(host::FEEDER)?, connect(host::OBSERVER)?);
        Ok(Fed { feeder, observer, router })
    }

    /// Teaches it these UPDATEs and the marker; gives the milliseconds from the first octet to the marker at the
    /// observer, when all before it was dealt with.
    pub(crate) fn feed(&mut self, updates: &[u8], family: Family) -> Result<f64> {
        let mut marker = Vec::new();
        wire::announce_marker(&author(host::FEEDER), family, &mut marker);
        let before = self.observer.counts().announced;
        let begin = self.feeder.send(updates)?;
        self.feeder.send(&marker)?;
        let end = self.observer.receive_until("the marker", PATIENCE, |counts| counts.announced > before)?;
        anyhow::ensure!(self.observer.counts().announced == 1, "the observer was told more than the marker");
        Ok(end.milliseconds_since(begin))
    }
}
