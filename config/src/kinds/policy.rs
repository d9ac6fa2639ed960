//! The rules of a BGPPeer: what may come in from the router, and what may go to it.
//!
//! Both match alike and become the rules of `plainroute_bgp::policy`, which decide.
use std::ops::RangeInclusive;

use plainroute_bgp::{
    Asn, Community, LargeCommunity,
    policy::{self, Filter, InvalidPrefixRule, PrefixRule},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::yes;
use crate::{
    rules::Violations,
    value::{Cidr, Parsed},
};

/// A rule of what may come in: what it asks of a route must hold altogether.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::IMPORT_RULE))]
pub struct ImportRule {
    /// The prefix that is meant; with `ge` or `le`, the prefix that contains those that are meant.
    pub cidr: Cidr,
    /// The shortest prefix length that is taken. 0: the length of `cidr`.
    #[serde(default)]
    pub ge: u8,
    /// The longest prefix length that is taken. 0: the longest there is where `ge` is set, else the length of `cidr`.
    #[serde(default)]
    pub le: u8,
    /// Standard communities (RFC 1997) that the route must all carry, each `ASN:VALUE` or a well-known name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub communities: Vec<Parsed<Community>>,
    /// Large communities (RFC 8092) that the route must all carry, each `GLOBAL:LOCAL1:LOCAL2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub large_communities: Vec<Parsed<LargeCommunity>>,
    /// What the route's AS path must be. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path: Option<AsPathRule>,
    /// What becomes of a route that matches.
    #[serde(default)]
    pub action: RuleAction,
    /// LOCAL_PREF of the accepted route in place of what the router sent; the higher is preferred. A route that the
    /// router marks with `graceful-shutdown` stays the last choice (RFC 8326).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<u32>,
    /// Whether the best routes go into the kernel (`routing.importTable`), several of equal worth as one multipath
    /// route.
    #[serde(default = "yes")]
    pub install: bool,
}

/// A rule of what may go out. The AS path is our own, so it is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::EXPORT_RULE))]
pub struct ExportRule {
    /// The prefix that is meant; with `ge` or `le`, the prefix that contains those that are meant.
    pub cidr: Cidr,
    /// The shortest prefix length that is meant. 0: the length of `cidr`.
    #[serde(default)]
    pub ge: u8,
    /// The longest prefix length that is meant. 0: the longest there is where `ge` is set, else the length of `cidr`.
    #[serde(default)]
    pub le: u8,
    /// Standard communities (RFC 1997) that the BGPAdvertisement must all have given the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub communities: Vec<Parsed<Community>>,
    /// Large communities (RFC 8092) that the BGPAdvertisement must all have given the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub large_communities: Vec<Parsed<LargeCommunity>>,
    /// What becomes of a route that matches.
    #[serde(default)]
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuleAction {
    /// The route passes.
    #[default]
    Accept,
    /// The route does not pass, and no later rule is asked.
    Reject,
}

/// What an AS path must be; at least one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::AS_PATH_RULE))]
pub struct AsPathRule {
    /// This AS is in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<Parsed<Asn>>,
    /// This AS originated the route: it is the last of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originated_by: Option<Parsed<Asn>>,
    /// The path is so long at most. An AS that stands in it several times counts as often; a set counts as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u16>,
}

impl From<RuleAction> for policy::Action {
    fn from(action: RuleAction) -> policy::Action {
        match action {
            RuleAction::Accept => policy::Action::Accept,
            RuleAction::Reject => policy::Action::Reject,
        }
    }
}

impl From<AsPathRule> for policy::AsPathFilter {
    fn from(rule: AsPathRule) -> policy::AsPathFilter {
        policy::AsPathFilter {
            contains: rule.contains.map(|asn| *asn),
            originated_by: rule.originated_by.map(|asn| *asn),
            max_length: rule.max_length,
        }
    }
}

impl TryFrom<&ExportRule> for policy::ExportRule {
    type Error = InvalidPrefixRule;

    fn try_from(rule: &ExportRule) -> Result<policy::ExportRule, InvalidPrefixRule> {
        let (prefix, lengths) = (rule.cidr.prefix(), lengths(rule.cidr, rule.ge, rule.le));
        let filter = Filter {
            prefixes: PrefixRule::new(prefix, Some(*lengths.start()), Some(*lengths.end()))?,
            communities: rule.communities.iter().map(|community| **community).collect(),
            large_communities: rule.large_communities.iter().map(|community| **community).collect(),
        };
        Ok(policy::ExportRule { filter, action: rule.action.into() })
    }
}

impl ImportRule {
    /// The prefix lengths that the rule takes: the CIDR's own; with `ge`, from there to the longest; with `le`, up
    /// to there.
    pub fn lengths(&self) -> RangeInclusive<u8> {
        lengths(self.cidr, self.ge, self.le)
    }

    pub(super) fn check(&self, index: usize, broken: &mut Violations) {
        let at = format!("import[{index}]");
        check_lengths(&at, self.cidr, self.ge, self.le, broken);
        if self.as_path == Some(AsPathRule::default()) {
            broken.add(
                format_args!("{at}.asPath"),
                "says nothing; give it contains, originatedBy or maxLength, or leave it out",
            );
        }
        if self.action == RuleAction::Reject && self.local_preference.is_some() {
            broken.add(format_args!("{at}.localPreference"), "has no meaning with action: Reject");
        }
    }
}

impl ExportRule {
    pub(super) fn check(&self, index: usize, broken: &mut Violations) {
        check_lengths(&format!("export[{index}]"), self.cidr, self.ge, self.le, broken);
    }
}

fn lengths(cidr: Cidr, ge: u8, le: u8) -> RangeInclusive<u8> {
    let (length, longest) = (cidr.prefix().length(), cidr.prefix().family().max_length());
    match (ge, le) {
        (0, 0) => length..=length,
        (0, le) => length..=le,
        (ge, 0) => ge..=longest,
        (ge, le) => ge..=le,
    }
}

fn check_lengths(at: &str, cidr: Cidr, ge: u8, le: u8, broken: &mut Violations) {
    let (length, longest) = (cidr.prefix().length(), cidr.prefix().family().max_length());
    for (field, value) in [("ge", ge), ("le", le)] {
        if value != 0 && !(length..=longest).contains(&value) {
            broken.add(
                format_args!("{at}.{field}"),
                format!("{value} is outside of {length} to {longest}, the lengths within {cidr}"),
            );
        }
    }
    if ge != 0 && le != 0 && ge > le {
        broken.add(format_args!("{at}.ge"), format!("{ge} is more than le {le}"));
    }
}
