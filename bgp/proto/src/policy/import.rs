//! The import policy of one peer: an ordered list of rules, default deny (RFC 8212).
use std::{collections::BTreeSet, sync::Arc};

use super::{AsPathFilter, Filter, PrefixRule};
use crate::{Prefix, wire::PathAttributes};

/// One rule: which routes, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImportRule {
    /// Which routes, by prefix and communities.
    pub filter: Filter,
    /// Of these, which by their AS path.
    pub as_path: AsPathFilter,
    /// What becomes of them.
    pub verdict: Verdict,
}

impl ImportRule {
    /// Accepts these prefixes, whatever else is said of them.
    pub fn accept(prefixes: PrefixRule, accepted: Accepted) -> ImportRule {
        let verdict = Verdict::Accept(accepted);
        ImportRule { filter: prefixes.into(), as_path: AsPathFilter::default(), verdict }
    }

    fn matches(&self, prefix: Prefix, attributes: &PathAttributes) -> bool {
        self.filter.matches(prefix, &attributes.communities, &attributes.large_communities)
            && self.as_path.matches(&attributes.as_path)
    }
}

/// What becomes of a route that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It comes in.
    Accept(Accepted),
    /// It stays out, and no later rule is asked.
    Reject,
}

/// What an accepting rule says of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// Whether the kernel is to use the route; otherwise it is only shown.
    pub install: bool,
    /// LOCAL_PREF in place of what the peer sent; `None` leaves that as it is.
    pub local_pref: Option<u32>,
}

/// What a peer's routes must match to come in. The first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImportPolicy {
    rules: Vec<ImportRule>,
    followed: Option<Arc<BTreeSet<Prefix>>>,
}

impl ImportPolicy {
    /// The policy that accepts nothing: the default (RFC 8212).
    pub const DENY: ImportPolicy = ImportPolicy { rules: Vec::new(), followed: None };

    /// The policy of these rules, in order.
    pub fn new(rules: Vec<ImportRule>) -> ImportPolicy {
        ImportPolicy { rules, followed: None }
    }

    /// The same, and before all rules: routes to exactly these prefixes come in, not for the kernel, and our own AS in
    /// their path is no loop. They are what routers of our own AS advertise, told by a neighbour: whoever takes one sends
    /// nothing along it to that neighbour, but learns who of us is preferred there.
    #[must_use]
    pub fn following(self, prefixes: Arc<BTreeSet<Prefix>>) -> ImportPolicy {
        ImportPolicy { followed: Some(prefixes).filter(|prefixes| !prefixes.is_empty()), ..self }
    }

    /// Whether `prefix` is one of [`ImportPolicy::following`].
    pub fn follows(&self, prefix: Prefix) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.contains(&prefix))
    }

    /// Whether there is any such prefix.
    pub fn follows_any(&self) -> bool {
        self.followed.is_some()
    }

    /// What the policy says of a route; `None` where it stays out.
    pub fn evaluate(&self, prefix: Prefix, attributes: &PathAttributes) -> Option<Accepted> {
        if self.follows(prefix) {
            return Some(Accepted::default());
        }
        let rule = self.rules.iter().find(|rule| rule.matches(prefix, attributes))?;
        match rule.verdict {
            Verdict::Accept(accepted) => Some(accepted),
            Verdict::Reject => None,
        }
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[ImportRule] {
        &self.rules
    }
}

impl From<Vec<ImportRule>> for ImportPolicy {
    fn from(rules: Vec<ImportRule>) -> ImportPolicy {
        ImportPolicy::new(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asn, wire::AsPath};

    const INSTALL: Accepted = Accepted { install: true, local_pref: None };
    const SHOW: Accepted = Accepted { install: false, local_pref: None };

    fn rule(prefix: &str, le: Option<u8>, accepted: Accepted) -> ImportRule {
        ImportRule::accept(PrefixRule::new(prefix.parse().unwrap(), None, le).unwrap(), accepted)
    }

    fn said(policy: &ImportPolicy, prefix: &str) -> Option<Accepted> {
        policy.evaluate(prefix.parse().unwrap(), &PathAttributes::default())
    }

    #[test]
    fn nothing_comes_in_unless_said() {
        assert_eq!(said(&ImportPolicy::DENY, "0.0.0.0/0"), None);
        let policy = ImportPolicy::new(vec![rule("0.0.0.0/0", None, INSTALL)]);
        assert_eq!(said(&policy, "::/0"), None);
        assert_eq!(said(&policy, "0.0.0.0/0"), Some(INSTALL));
    }

    #[test]
    fn the_first_match_decides() {
        let policy = ImportPolicy::new(vec![
            rule("10.1.0.0/16", Some(32), SHOW),
            rule("10.0.0.0/8", Some(32), INSTALL),
        ]);
        assert_eq!(said(&policy, "10.1.2.0/24"), Some(SHOW));
        assert_eq!(said(&policy, "10.2.2.0/24"), Some(INSTALL));
    }

    #[test]
    fn communities_the_path_and_a_rejection_decide_together() {
        let asn = |number| Asn::new(number).unwrap();
        let any = || rule("0.0.0.0/0", Some(32), INSTALL);
        let preferred = Accepted { install: true, local_pref: Some(300) };
        let policy = ImportPolicy::new(vec![
            ImportRule {
                as_path: AsPathFilter { contains: Some(asn(666)), ..AsPathFilter::default() },
                verdict: Verdict::Reject,
                ..any()
            },
            ImportRule {
                filter: Filter { communities: vec!["64600:1".parse().unwrap()], ..any().filter },
                verdict: Verdict::Accept(preferred),
                ..any()
            },
            ImportRule {
                as_path: AsPathFilter { originated_by: Some(asn(64600)), ..AsPathFilter::default() },
                ..any()
            },
        ]);
        // (path, communities, verdict)
        for (path, communities, verdict) in [
            (&[64600, 666][..], &["64600:1"][..], None),
            (&[64600, 64601], &["64600:1"], Some(preferred)),
            (&[64600], &["64600:2"], Some(INSTALL)),
            (&[64600], &["64600:1", "64600:2"], Some(preferred)),
            (&[64600, 64601], &["64600:2"], None),
        ] {
            let attributes = PathAttributes {
                as_path: AsPath::sequence(path.iter().map(|number| asn(*number))),
                communities: communities.iter().map(|text| text.parse().unwrap()).collect(),
                ..PathAttributes::default()
            };
            let said = policy.evaluate("10.0.0.0/8".parse().unwrap(), &attributes);
            assert_eq!(said, verdict, "{path:?} {communities:?}");
        }
    }
}
