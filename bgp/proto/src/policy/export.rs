//! The export policy of one peer: an ordered list of rules, default deny.
//!
//! A second net below what chooses the routes: it can only hold back. The AS path is not asked, since what we
//! announce is our own.
use super::{Action, Filter};
use crate::{Community, LargeCommunity, Prefix};

/// One rule: which routes, and whether they may leave.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportRule {
    /// Which routes.
    pub filter: Filter,
    /// What becomes of them.
    pub action: Action,
}

/// What routes must match to go to a peer. The first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExportPolicy {
    rules: Vec<ExportRule>,
}

impl ExportPolicy {
    /// The policy that lets nothing out.
    pub const DENY: ExportPolicy = ExportPolicy { rules: Vec::new() };

    /// The policy of these rules, in order.
    pub fn new(rules: Vec<ExportRule>) -> ExportPolicy {
        ExportPolicy { rules }
    }

    /// Whether a route to `prefix` that carries these communities may leave.
    pub fn permits(&self, prefix: Prefix, communities: &[Community], large: &[LargeCommunity]) -> bool {
        let rule = self.rules.iter().find(|rule| rule.filter.matches(prefix, communities, large));
        rule.is_some_and(|rule| rule.action == Action::Accept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PrefixRule;

    fn rule(prefix: &str, communities: &[&str], action: Action) -> ExportRule {
        let prefixes = PrefixRule::new(prefix.parse().unwrap(), None, Some(32)).unwrap();
        let communities = communities.iter().map(|text| text.parse().unwrap()).collect();
        ExportRule { filter: Filter { communities, ..Filter::from(prefixes) }, action }
    }

    #[test]
    fn the_first_match_decides_and_the_end_denies() {
        let policy = ExportPolicy::new(vec![
            rule("10.1.0.0/16", &[], Action::Reject),
            rule("10.0.0.0/8", &["64512:100"], Action::Accept),
        ]);
        // (prefix, its communities, may leave)
        for (prefix, communities, leaves) in [
            ("10.2.0.1/32", &["64512:100"][..], true),
            ("10.2.0.1/32", &["64512:99", "64512:100"], true),
            ("10.2.0.1/32", &[], false),
            ("10.1.0.1/32", &["64512:100"], false),
            ("11.0.0.1/32", &["64512:100"], false),
            ("2001:db8::1/128", &["64512:100"], false),
        ] {
            let communities: Vec<Community> = communities.iter().map(|text| text.parse().unwrap()).collect();
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(policy.permits(prefix, &communities, &[]), leaves, "{prefix} {communities:?}");
            assert!(!ExportPolicy::DENY.permits(prefix, &communities, &[]));
        }
    }
}
