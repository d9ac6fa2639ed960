//! The rules that an API server checks at admission, in CEL. They say what [`crate::Spec::check`] and the value types say,
//! as far as CEL can; a suite on a real API server holds the two against each other.
//!
//! The types name them with `#[schemars(extend(..))]`, so that they stand in the schema where they belong. `ip()` and
//! `cidr()` need Kubernetes 1.31. Every rule is total: where a value that it looks at has no valid form, it holds, since
//! the value's own rule says so already.
mod peer;
mod pool;

use schemars::{Schema, json_schema};
use serde::Serialize;

pub(crate) use peer::*;
pub(crate) use pool::*;

/// One rule, as `x-kubernetes-validations` has it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    rule: &'static str,
    message: &'static str,
    /// The field that the message is about, where it is not the one that has the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    field_path: Option<&'static str>,
}

impl Rule {
    const fn new(rule: &'static str, message: &'static str) -> Rule {
        Rule { rule, message, field_path: None }
    }

    const fn at(field: &'static str, rule: &'static str, message: &'static str) -> Rule {
        Rule { rule, message, field_path: Some(field) }
    }
}

/// The schema of a text of so many characters at most that these rules are about.
pub(crate) fn text(longest: u32, rules: &[Rule]) -> Schema {
    json_schema!({ "type": "string", "maxLength": longest, "x-kubernetes-validations": rules })
}

pub(crate) const ADDRESS: [Rule; 1] = [Rule::new("isIP(self)", "must be an IP address")];

pub(crate) const CIDR: [Rule; 2] = [
    Rule::new("isCIDR(self)", "must be a CIDR (ADDRESS/LENGTH)"),
    Rule::new("!isCIDR(self) || cidr(self).masked() == cidr(self)", "must be a CIDR without host bits set"),
];

pub(crate) const ADDRESS_OR_CIDR: [Rule; 2] = [
    Rule::new("isIP(self) || isCIDR(self)", "must be an IP address or a CIDR"),
    Rule::new("!isCIDR(self) || cidr(self).masked() == cidr(self)", "must be a CIDR without host bits set"),
];

pub(crate) const SCOPED_ADDRESS: [Rule; 2] = [
    Rule::new(
        "isIP(self.split('%')[0]) && (!self.contains('%') || \
         self.substring(self.indexOf('%') + 1).matches('^[^/:\\\\s\\\\v\\\\x85\\\\p{Z}]{1,15}$'))",
        "must be an IP address, a link-local one with its interface: fe80::1%eth0",
    ),
    Rule::new(
        "!isIP(self.split('%')[0]) || self.contains('%') == \
         (ip(self.split('%')[0]).family() == 6 && ip(self.split('%')[0]).isLinkLocalUnicast())",
        "a link-local IPv6 address names its interface (fe80::1%eth0), and no other address does",
    ),
];

pub(crate) const ROUTER_ID: [Rule; 1] = [Rule::new(
    "isIP(self) && ip(self).family() == 4 && !ip(self).isUnspecified()",
    "must be an IPv4 address other than 0.0.0.0",
)];

pub(crate) const HOLD_TIME: [Rule; 1] = [Rule::new("self == 0 || self >= 3", "must be 0 or at least 3")];

pub(crate) const COMMUNITY: [Rule; 1] = [Rule::new(
    "self.matches('^0*[0-9]{1,5}:0*[0-9]{1,5}$') ? self.split(':').all(part, int(part) <= 65535) : self in \
     ['graceful-shutdown', 'llgr-stale', 'no-llgr', 'no-export', 'no-advertise', 'no-export-subconfed']",
    "must be ASN:VALUE, both up to 65535, or a name like no-export",
)];

pub(crate) const LARGE_COMMUNITY: [Rule; 1] = [Rule::new(
    "self.matches('^0*[0-9]{1,10}(:0*[0-9]{1,10}){2}$') && self.split(':').all(part, int(part) <= 4294967295)",
    "must be GLOBAL:LOCAL1:LOCAL2, each up to 4294967295",
)];

/// By the form of the administrator: an IPv4 address, an AS number of four octets, or one of two.
pub(crate) const EXTENDED_COMMUNITY: [Rule; 1] = [Rule::new(
    "self.matches('^(rt|ro):([0-9]{1,3}([.][0-9]{1,3}){3}|0*[0-9]{1,10}L?):0*[0-9]{1,10}$') && \
     (self.contains('.') ? isIP(self.split(':')[1]) && int(self.split(':')[2]) <= 65535 : \
     int(self.split(':')[1].replace('L', '')) <= 4294967295 && int(self.split(':')[2]) <= \
     (self.contains('L') || int(self.split(':')[1].replace('L', '')) > 65535 ? 65535 : 4294967295))",
    "must be rt:ADMIN:NUMBER or ro:ADMIN:NUMBER, ADMIN an AS number or an IPv4 address; NUMBER up to 65535, with an AS \
     number below 65536 up to 4294967295",
)];

/// An AS number as a text: 1 to 4294967295, or two numbers up to 65535 with a point between.
pub(crate) const ASN_PATTERN: &str = "^0*([1-9][0-9]{0,8}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}\
     |42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5])$\
     |^0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})\
     [.]0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})$\
     |^0+[.]0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})$";

pub(crate) const REQUIREMENT: [Rule; 1] = [Rule::new(
    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : \
     !has(self.values) || size(self.values) == 0",
    "operators In and NotIn need values, Exists and DoesNotExist take none",
)];

pub(crate) const TYPES: [Rule; 1] =
    [Rule::new("self.all(a, self.filter(b, a == b).size() == 1)", "a type is there twice")];

pub(crate) const WITHDRAW: [Rule; 1] = [Rule::at(
    ".minReadySeconds",
    "self.minReadySeconds == 0 || self.notReady",
    "counts with notReady: true only",
)];

pub(crate) const EGRESS: [Rule; 3] = [
    Rule::at(
        ".egressIPs",
        "(has(self.egressIPs) && size(self.egressIPs) > 0) != has(self.egressPool)",
        "set either egressIPs or egressPool",
    ),
    Rule::at(
        ".egressIPs",
        "!has(self.egressIPs) || self.egressIPs.all(a, !isIP(a) || \
         self.egressIPs.filter(b, isIP(b) && ip(a) == ip(b)).size() == 1)",
        "an address is there twice",
    ),
    Rule::at(
        ".mode",
        "self.mode != 'Local' || has(self.egressPool)",
        "Local needs egressPool: each node takes its own address of the pool",
    ),
];
