//! Removes the conntrack entries that an earlier table has left and that go otherwise than desired now.
use std::{fs, io, net::IpAddr, sync::Arc, time::Duration};

use ahash::AHashSet;
use tokio::time::Instant;

use super::{
    NatDesired,
    compile::{ADDRESSES, OUTS},
    flows::{Decisions, is_stale},
    netlink::Conntrack,
    ruleset::{Key, Ruleset},
};

/// Reading all flows takes at most a fifth of one core: the rest after it is this many times its length.
const REST: u32 = 4;
/// How long new Pods may wait for others.
const LEISURE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
const SYSCTL: &str = "/proc/sys/net/netfilter/";

/// What is still to be removed.
#[derive(Default)]
pub(super) struct Settling {
    /// What was desired when all was settled last.
    before: Option<Arc<NatDesired>>,
    /// The addresses that were translated to since.
    egress: AHashSet<IpAddr>,
    /// When it is to be done, and when it may be again.
    at: Option<Instant>,
    rested: Option<Instant>,
    /// Why it was not possible.
    pub(super) error: Option<String>,
}

impl Settling {
    /// When there is something to do.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// A table was found: by it packets were translated.
    pub(super) fn found(&mut self, table: &Ruleset) {
        let named = |name: &&Arc<str>| name.starts_with(ADDRESSES) || name.starts_with(OUTS);
        for set in table.sets.iter().filter(|(name, _)| named(name)).map(|(_, set)| set) {
            let address = |key: Key| match key {
                Key::V4(bits) => Some(IpAddr::V4(bits.into())),
                Key::V6(bits) => Some(IpAddr::V6(bits.into())),
                Key::Interface(_) => None,
            };
            self.egress.extend(set.elements.iter().filter_map(|element| address(element.key)));
        }
    }

    /// The table was changed to what is wanted now, or removed.
    pub(super) fn changed(&mut self, wanted: &NatDesired) {
        self.schedule(wanted, Duration::ZERO);
    }

    /// Only Pods were added: there is seldom anything to remove, and no hurry. Until then `check` drops what an older flow
    /// would leave as.
    pub(super) fn added(&mut self, more: &NatDesired) {
        self.schedule(more, LEISURE);
    }

    fn schedule(&mut self, wanted: &NatDesired, after: Duration) {
        self.egress.extend(translated_to(wanted));
        let now = Instant::now();
        let at = (now + after).max(self.rested.unwrap_or(now));
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Removes what is to be removed, if it is time. How many entries went; `None` when nothing was to be done.
    pub(super) async fn settle(&mut self, wanted: &Arc<NatDesired>) -> Option<u64> {
        if self.at().is_none_or(|at| Instant::now() < at) {
            return None;
        }
        let began = Instant::now();
        let done = self.remove(wanted).await;
        let ended = Instant::now();
        match done {
            Ok(removed) => {
                self.rested = Some(ended + (ended - began) * REST);
                self.at = None;
                self.error = None;
                self.egress = translated_to(wanted).collect();
                self.before = Some(Arc::clone(wanted));
                tracing::debug!("{removed} conntrack entries removed in {:?}", ended - began);
                Some(removed)
            }
            Err(error) => {
                self.at = Some(ended + RETRY);
                let text =
                    format!("conntrack's entries cannot be removed (module nf_conntrack_netlink): {error}");
                if self.error.as_ref() != Some(&text) {
                    tracing::error!("egress: {text}");
                }
                self.error = Some(text);
                None
            }
        }
    }

    async fn remove(&self, wanted: &NatDesired) -> io::Result<u64> {
        let mut conntrack = Conntrack::open()?;
        let before = self.before.as_deref().map(Decisions::new);
        let now = Decisions::new(wanted);
        let stale = conntrack.entries(|flow| is_stale(flow, before.as_ref(), &now, &self.egress)).await?;
        conntrack.remove(&stale).await
    }
}

fn translated_to(desired: &NatDesired) -> impl Iterator<Item = IpAddr> {
    let sources = desired.classes.iter().flat_map(|class| class.sources.values());
    sources
        .filter(|source| source.is_here())
        .map(|source| source.address)
        .chain(desired.addresses.iter().copied())
}

/// A switch of conntrack's; `None` while conntrack is not loaded.
pub(super) fn conntrack_switch(name: &str) -> Option<bool> {
    let value = fs::read_to_string(format!("{SYSCTL}{name}")).ok()?;
    Some(value.trim() != "0")
}
