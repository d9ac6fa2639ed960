//! What the main task logs: each change once, with the peer and the prefix, and bursts as numbers.
use std::collections::BTreeSet;

use tracing::{debug, info, warn};

use crate::{
    gate::Advertised,
    plan::{AddressPlan, Plan, PodPlan},
};

/// More changed routes than this are logged as a number.
const LOGGED_ROUTES: usize = 20;

/// What was logged and still holds.
#[derive(Debug, Default)]
pub(super) struct Journal {
    violations: BTreeSet<String>,
    conditions: BTreeSet<String>,
}

impl Journal {
    /// What is advertised from now on.
    pub(super) fn announcement(&self, before: Option<&Advertised>, now: &Advertised) {
        let nothing = Advertised::new();
        let before = before.unwrap_or(&nothing);
        let added: Vec<_> = now.keys().filter(|key| !before.contains_key(key)).collect();
        let gone: Vec<_> = before.keys().filter(|key| !now.contains_key(key)).collect();
        if added.len() + gone.len() > LOGGED_ROUTES {
            info!(delivered = added.len(), withdrawn = gone.len(), "routes changed");
            return;
        }
        for (peer, prefix) in added {
            info!(%peer, %prefix, "delivered, to be advertised");
        }
        for (peer, prefix) in gone {
            info!(%peer, %prefix, "to be withdrawn");
        }
    }

    /// A new plan: each rule that is broken is logged when that begins and when it ends.
    pub(super) fn plan(&mut self, plan: &Plan) {
        let violation = |(pod, address): (&PodPlan, &AddressPlan)| {
            let reason = address.refused.as_ref().filter(|reason| reason.is_violation())?;
            Some(format!("{}/{} {}: {reason}", pod.namespace, pod.name, address.address))
        };
        let violations: BTreeSet<String> = plan.addresses().filter_map(violation).collect();
        for begun in violations.difference(&self.violations) {
            warn!("not advertised: {begun}");
        }
        for ended in self.violations.difference(&violations) {
            info!("no longer refused: {ended}");
        }
        self.violations = violations;
        let conditions: BTreeSet<String> = plan.conditions.iter().map(ToString::to_string).collect();
        for begun in conditions.difference(&self.conditions) {
            debug!("condition: {begun}");
        }
        self.conditions = conditions;
    }
}
