//! The import policy of one peer: an ordered list of rules, default deny (RFC 8212).
use super::PrefixRule;
use crate::Prefix;

/// One rule: which prefixes it accepts, and whether they are for the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImportRule {
    /// Which prefixes.
    pub prefixes: PrefixRule,
    /// Whether the kernel is to use them; otherwise they are only shown.
    pub install: bool,
}

/// What an accepting rule says of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accepted {
    /// Whether the kernel is to use the route.
    pub install: bool,
}

/// What a peer's routes must match to come in. The first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImportPolicy {
    rules: Vec<ImportRule>,
}

impl ImportPolicy {
    /// The policy that accepts nothing: the default (RFC 8212).
    pub const DENY: ImportPolicy = ImportPolicy { rules: Vec::new() };

    /// The policy of these rules, in order.
    pub fn new(rules: Vec<ImportRule>) -> ImportPolicy {
        ImportPolicy { rules }
    }

    /// What the policy says of `prefix`; `None` where it stays out.
    pub fn evaluate(&self, prefix: Prefix) -> Option<Accepted> {
        let rule = self.rules.iter().find(|rule| rule.prefixes.matches(prefix))?;
        Some(Accepted { install: rule.install })
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

    fn rule(prefix: &str, le: Option<u8>, install: bool) -> ImportRule {
        ImportRule { prefixes: PrefixRule::new(prefix.parse().unwrap(), None, le).unwrap(), install }
    }

    #[test]
    fn nothing_comes_in_unless_said() {
        assert_eq!(ImportPolicy::DENY.evaluate("0.0.0.0/0".parse().unwrap()), None);
        let policy = ImportPolicy::new(vec![rule("0.0.0.0/0", None, true)]);
        assert_eq!(policy.evaluate("::/0".parse().unwrap()), None);
        assert_eq!(policy.evaluate("0.0.0.0/0".parse().unwrap()), Some(Accepted { install: true }));
    }

    #[test]
    fn the_first_match_decides() {
        let policy =
            ImportPolicy::new(vec![rule("10.1.0.0/16", Some(32), false), rule("10.0.0.0/8", Some(32), true)]);
        assert_eq!(policy.evaluate("10.1.2.0/24".parse().unwrap()), Some(Accepted { install: false }));
        assert_eq!(policy.evaluate("10.2.2.0/24".parse().unwrap()), Some(Accepted { install: true }));
    }
}
