//! Which other nodes are fenced: their Pods are dead, and what they had of the pools may be taken over.
//!
//! A node is fenced while its Node is tainted `node.kubernetes.io/out-of-service`, from the second of two looks on, thirty seconds
//! apart, that both found no Node of its name, or where a person says so of a node that is not Ready. Only nodes are looked
//! at that have what a Pod here needs, and, so that nothing is left lying, those of a survey of all that one agent or another makes
//! now and then. Pure; time goes in as a value. What is decided here may be out of date a moment later: [`Look::allows`] is
//! asked once more before anything is deleted.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Between the two looks that find no Node.
const APART: Duration = Duration::from_secs(30);
/// How often a node is looked at while there is reason to.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// For how long one is looked at without a new reason to.
const FORGET: Duration = Duration::from_secs(120);

/// What a live look at a Node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There is none of that name.
    Gone,
    /// It is tainted as out of service.
    OutOfService,
    /// It is there.
    There { ready: bool },
}

impl Look {
    /// Whether what a node has that was found to be fenced may be deleted still.
    pub(super) fn allows(self, by_word: bool) -> bool {
        match self {
            Look::Gone | Look::OutOfService => true,
            Look::There { ready } => by_word && !ready,
        }
    }
}

/// What is known of the nodes that there is reason to look at.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    nodes: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    reason_at: Instant,
    looked_at: Option<Instant>,
    gone_since: Option<Instant>,
    fenced: bool,
    /// A person says that it is dead.
    by_word: bool,
    /// What of it is to be taken over as soon as it is fenced.
    inherit: Option<Share>,
}

/// What of a fenced node is to be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// All that it has.
    All,
    /// The block that has the address.
    BlockOf(IpAddr),
}

impl Fencing {
    /// There is reason to look at a node.
    pub(super) fn suspect(&mut self, node: &str, now: Instant) {
        self.known(node, now).reason_at = now;
    }

    /// What the node has is to be taken over once it is fenced.
    pub(super) fn claim(&mut self, node: &str, share: Share, now: Instant) {
        self.known(node, now).inherit = Some(share);
    }

    /// A person says that the node is dead. That counts while it is not Ready.
    pub(super) fn confirm(&mut self, node: &str, now: Instant) {
        self.known(node, now).by_word = true;
    }

    fn known(&mut self, node: &str, now: Instant) -> &mut Known {
        self.nodes.entry(node.to_owned()).or_insert(Known {
            reason_at: now,
            looked_at: None,
            gone_since: None,
            fenced: false,
            by_word: false,
            inherit: None,
        })
    }

    /// The nodes to look at now; each counts as looked at from here on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        self.nodes.retain(|_, known| now.saturating_duration_since(known.reason_at) < FORGET);
        let due = |known: &Known| known.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK);
        let due: Vec<_> = self.nodes.iter_mut().filter(|(_, known)| due(known)).collect();
        due.into_iter()
            .map(|(name, known)| {
                known.looked_at = Some(now);
                name.clone()
            })
            .collect()
    }

    /// Takes what a look found; one that failed is none.
    pub(super) fn take(&mut self, node: &str, look: Look, now: Instant) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        known.gone_since = (look == Look::Gone).then(|| known.gone_since.unwrap_or(now));
        known.fenced = match look {
            Look::OutOfService => true,
            Look::Gone => {
                known.by_word
                    || known.gone_since.is_some_and(|since| now.saturating_duration_since(since) >= APART)
            }
            Look::There { .. } => look.allows(known.by_word),
        };
        // A word is said of what is so now, not of what the node becomes later.
        known.by_word &= known.fenced;
    }

    pub(super) fn fenced(&self) -> BTreeSet<String> {
        self.nodes.iter().filter(|(_, known)| known.fenced).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn by_word(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|known| known.by_word)
    }

    /// What is to be taken over now, once.
    pub(super) fn inheritances(&mut self) -> Vec<(String, Share)> {
        let fenced = self.nodes.iter_mut().filter(|(_, known)| known.fenced);
        fenced.filter_map(|(name, known)| Some((name.clone(), known.inherit.take()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_is_gone_only_when_two_looks_apart_found_none() {
        let (mut fencing, start) = (Fencing::default(), Instant::now());
        fencing.claim("b", Share::All, start);
        assert_eq!(fencing.due(start), ["b"]);
        assert_eq!(fencing.due(after(start, 1)), Vec::<String>::new(), "looked at a moment ago");
        fencing.take("b", Look::Gone, start);
        fencing.take("b", Look::Gone, after(start, 29));
        assert!(fencing.fenced().is_empty() && fencing.inheritances().is_empty());
        // It was there in between.
        fencing.take("b", Look::There { ready: false }, after(start, 30));
        fencing.take("b", Look::Gone, after(start, 40));
        assert!(fencing.fenced().is_empty());
        fencing.take("b", Look::Gone, after(start, 70));
        assert_eq!(fencing.fenced(), BTreeSet::from(["b".to_owned()]));
        assert_eq!(fencing.inheritances(), [("b".to_owned(), Share::All)]);
        assert_eq!(fencing.inheritances(), [], "once");
        fencing.take("b", Look::There { ready: true }, after(start, 75));
        assert!(fencing.fenced().is_empty(), "it is back");
        assert_eq!(fencing.due(after(start, 200)), Vec::<String>::new(), "nobody needs to know any more");
    }

    #[test]
    fn a_taint_is_enough_and_a_word_only_while_the_node_is_not_ready() {
        let (mut fencing, now) = (Fencing::default(), Instant::now());
        fencing.suspect("b", now);
        fencing.take("b", Look::There { ready: false }, now);
        assert!(fencing.fenced().is_empty(), "not Ready is not dead");
        fencing.take("b", Look::OutOfService, now);
        assert_eq!(fencing.fenced().len(), 1);
        fencing.confirm("c", now);
        fencing.take("c", Look::There { ready: true }, now);
        assert!(
            !fencing.fenced().contains("c") && !fencing.by_word("c"),
            "a Ready node is not taken by word"
        );
        fencing.take("c", Look::There { ready: false }, now);
        assert!(!fencing.fenced().contains("c"), "the word was said of another time");
        fencing.confirm("c", now);
        fencing.take("c", Look::There { ready: false }, now);
        assert!(fencing.fenced().contains("c") && fencing.by_word("c"));
    }

    #[test]
    fn before_a_deletion_a_node_that_is_back_is_seen() {
        assert!(Look::Gone.allows(false) && Look::OutOfService.allows(false));
        assert!(!Look::There { ready: false }.allows(false) && !Look::There { ready: true }.allows(true));
        assert!(Look::There { ready: false }.allows(true));
    }
}
