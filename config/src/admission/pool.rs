//! The rules of pools and of the blocks that are taken from them.
//!
//! CEL cannot compare addresses. What bounds it can tell, prefixes tell it: of two different addresses that share the
//! first n bits and no more, the one whose next bit is 0 is the lower, and `a/n` and `a/(n+1)` then have one network
//! address.
use super::Rule;

/// `self.start/n` with the number written by hand: what `string(n)` makes is of unknown length to the API server, which
/// then takes the rule for too expensive.
macro_rules! start {
    ($n:literal) => {
        concat!(
            "cidr(self.start + '/' + '   1 2 3 4 5 6 7 8 9101112'.substring(",
            $n,
            " / 10 * 2, ",
            $n,
            " / 10 * 2 + 2).trim() + '0123456789'.substring(",
            $n,
            " % 10, ",
            $n,
            " % 10 + 1))"
        )
    };
}

pub(crate) const RANGE: [Rule; 3] = [
    Rule::new(
        "has(self.cidr) ? !has(self.start) && !has(self.end) : has(self.start) && has(self.end)",
        "a range is either cidr, or both start and end",
    ),
    Rule::at(
        ".end",
        "!has(self.start) || !has(self.end) || !isIP(self.start) || !isIP(self.end) || \
         ip(self.start).family() == ip(self.end).family()",
        "start and end are of different families",
    ),
    Rule::at(
        ".end",
        concat!(
            "!has(self.start) || !has(self.end) || !isIP(self.start) || !isIP(self.end) || \
             !(ip(self.start).family() == ip(self.end).family()) || ip(self.start) == ip(self.end) || \
             [0, 16, 32, 48, 64, 80, 96, 112].exists(high, \
             [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].exists(low, \
             high + low < (ip(self.start).family() == 4 ? 32 : 128) && ",
            start!("(high + low)"),
            ".containsIP(self.end) && !",
            start!("(high + low + 1)"),
            ".containsIP(self.end) && ",
            start!("(high + low)"),
            ".masked().ip() == ",
            start!("(high + low + 1)"),
            ".masked().ip()))"
        ),
        "end is before start",
    ),
];

/// The number that an IPv4 address is.
macro_rules! number {
    ($address:literal) => {
        concat!(
            "(int(",
            $address,
            ".split('.')[0]) * 16777216 + int(",
            $address,
            ".split('.')[1]) * 65536 + \
             int(",
            $address,
            ".split('.')[2]) * 256 + int(",
            $address,
            ".split('.')[3]))"
        )
    };
}

/// Whether a range has `start` and `end`, and both are IPv4.
macro_rules! ends_are_ipv4 {
    ($range:literal) => {
        concat!(
            "has(",
            $range,
            ".start) && has(",
            $range,
            ".end) && isIP(",
            $range,
            ".start) && isIP(",
            $range,
            ".end) && \
             ip(",
            $range,
            ".start).family() == 4 && ip(",
            $range,
            ".end).family() == 4"
        )
    };
}

/// Of IPv6 ranges with start and end only the ends are looked at: the agent looks at the rest.
pub(crate) const IP_POOL: [Rule; 9] = [
    Rule::at(
        ".ipRanges",
        concat!(
            "self.ipRanges.all(a, !(",
            ends_are_ipv4!("a"),
            ") || self.ipRanges.filter(b, ",
            ends_are_ipv4!("b"),
            " && ",
            number!("a.start"),
            " <= ",
            number!("b.end"),
            " && ",
            number!("b.start"),
            " <= ",
            number!("a.end"),
            ").size() <= 1)"
        ),
        "ranges overlap",
    ),
    Rule::at(
        ".ipRanges",
        "self.ipRanges.all(a, !has(a.cidr) || !isCIDR(a.cidr) || self.ipRanges.filter(b, has(b.cidr) ? \
         isCIDR(b.cidr) && (cidr(a.cidr).containsCIDR(b.cidr) || cidr(b.cidr).containsCIDR(a.cidr)) : \
         has(b.start) && has(b.end) && isIP(b.start) && isIP(b.end) && \
         (cidr(a.cidr).containsIP(b.start) || cidr(a.cidr).containsIP(b.end))).size() == 1)",
        "ranges overlap",
    ),
    Rule::at(
        ".excluded",
        "!has(self.excluded) || self.ipRanges.exists(range, !has(range.cidr) || !isCIDR(range.cidr)) || \
         self.excluded.all(out, isIP(out) ? self.ipRanges.exists(range, cidr(range.cidr).containsIP(out)) : \
         !isCIDR(out) || self.ipRanges.exists(range, cidr(range.cidr).containsCIDR(out)))",
        "an excluded address lies in none of ipRanges",
    ),
    Rule::at(
        ".blockSize",
        "!has(self.blockSize) || self.usage != 'Pod' || self.allocation != 'Block' || \
         !self.ipRanges.exists(range, has(range.cidr) ? range.cidr.contains(':') : \
         has(range.start) && range.start.contains(':')) || \
         !self.ipRanges.exists(range, has(range.cidr) ? !range.cidr.contains(':') : \
         has(range.start) && !range.start.contains(':'))",
        "fits one family only, and the ranges are of both; leave it out or make two pools",
    ),
    Rule::at(
        ".blockSize",
        "!has(self.blockSize) || self.usage != 'Pod' || self.allocation != 'Block' || self.blockSize <= 32 || \
         !self.ipRanges.exists(range, has(range.cidr) ? !range.cidr.contains(':') : \
         has(range.start) && !range.start.contains(':'))",
        "is beyond 32, a single address",
    ),
    Rule::at(
        ".blockSize",
        "!has(self.blockSize) || self.usage != 'Pod' || self.allocation != 'Block' || \
         self.ipRanges.all(range, !has(range.cidr) || !isCIDR(range.cidr) || \
         cidr(range.cidr).prefixLength() <= self.blockSize)",
        "a block of that size does not fit into each of ipRanges",
    ),
    Rule::at(
        ".blockSize",
        "!has(self.blockSize) || self.usage != 'Pod' || self.allocation != 'Block' || \
         self.blockSize >= (self.ipRanges.exists(range, has(range.cidr) ? range.cidr.contains(':') : \
         has(range.start) && range.start.contains(':')) ? 116 : 20)",
        "a block has 4096 addresses at most",
    ),
    Rule::at(".usage", "self.usage == oldSelf.usage", "cannot be changed: make another pool"),
    Rule::at(".allocation", "self.allocation == oldSelf.allocation", "cannot be changed: make another pool"),
];

/// What ties the name to the CIDR: the rules of the object, since only there `metadata.name` is seen. A name is of any length to
/// the API server, so what they do with it is little.
pub(crate) const IP_BLOCK_NAME: [Rule; 3] = [
    Rule::new(
        "!isCIDR(self.spec.cidr) || self.spec.cidr.contains(':') || \
         self.metadata.name == self.spec.cidr.replace('.', '-').replace('/', '-') || \
         self.metadata.name.startsWith(self.spec.cidr.replace('.', '-').replace('/', '-') + '-to-')",
        "the name must be the CIDR's: 10-20-0-16-28",
    ),
    Rule::new(
        "!isCIDR(self.spec.cidr) || !self.spec.cidr.contains(':') || cidr(self.spec.cidr).prefixLength() < 116 || \
         self.metadata.name.matches('^([0-9a-f]{4}-){8}1[12][0-9](-to-.*)?$') && \
         cidr(self.metadata.name.substring(0, 39).replace('-', ':') + '/' + self.metadata.name.substring(40, 43)) \
         == cidr(self.spec.cidr)",
        "the name must be the CIDR's, with all eight groups in full: fd00-0020-0000-0000-0000-0000-0000-0010-124",
    ),
    Rule::new(
        "has(self.spec.transfer) && self.spec.transfer ? self.metadata.name.matches('-to-[0-9a-f]{16}$') : \
         !self.metadata.name.contains('-to-')",
        "the name must end in -to- and a hash where transfer is set, and only there",
    ),
];

pub(crate) const IP_ALLOCATION: [Rule; 1] = [Rule::new(
    "has(self.lentTo) ? has(self.loan) && !has(self.containerID) : !has(self.loan) && has(self.namespace) && \
     has(self.name) && (has(self.containerID) ? has(self.podUID) : has(self.statefulSet))",
    "must be a Pod's (namespace, name, podUID, containerID), kept for one of a StatefulSet (namespace, name, statefulSet) or \
     lent (lentTo, loan)",
)];

pub(crate) const IP_BLOCK: [Rule; 11] = [
    Rule::at(".cidr", "self.cidr == oldSelf.cidr", "cannot be changed: make another block"),
    Rule::at(".pool", "self.pool == oldSelf.pool", "cannot be changed: make another block"),
    Rule::at(".node", "self.node == oldSelf.node", "cannot be changed: the block is released first"),
    Rule::at(
        ".within",
        "!isCIDR(self.cidr) || !isCIDR(self.within) || (cidr(self.within).containsCIDR(self.cidr) && \
         cidr(self.within).prefixLength() == (self.cidr.contains(':') ? 116 : 20))",
        "must be the /20 (IPv6: /116) that cidr lies in",
    ),
    Rule::at(
        ".lender",
        "has(self.lender) == has(self.lenderNode)",
        "goes with lenderNode: set both or neither",
    ),
    Rule::at(
        ".lender",
        "(has(self.lender) ? self.lender : '') == (has(oldSelf.lender) ? oldSelf.lender : '')",
        "cannot be changed: make another block",
    ),
    Rule::at(
        ".lender",
        "!has(self.lender) || !isCIDR(self.cidr) || \
         cidr(self.cidr).prefixLength() == (self.cidr.contains(':') ? 128 : 32)",
        "only single addresses are lent",
    ),
    Rule::at(
        ".lender",
        "has(self.lender) || !(has(self.fixed) && self.fixed) && !(has(self.transfer) && self.transfer)",
        "is needed with fixed and transfer",
    ),
    Rule::at(".lenderNode", "!has(self.lenderNode) || self.lenderNode != self.node", "is the node itself"),
    Rule::at(
        ".cidr",
        "!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() >= (self.cidr.contains(':') ? 116 : 20)",
        "a block has 4096 addresses at most",
    ),
    Rule::at(
        ".allocations",
        "!has(self.allocations) || !isCIDR(self.cidr) || \
         cidr(self.cidr).prefixLength() < (self.cidr.contains(':') ? 116 : 20) || \
         self.allocations.all(one, one.ordinal < \
         [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096][(self.cidr.contains(':') ? 128 : 32) - \
         cidr(self.cidr).prefixLength()])",
        "an ordinal is beyond the block",
    ),
];
