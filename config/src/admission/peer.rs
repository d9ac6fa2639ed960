//! The rules of a BGPPeer.
use super::Rule;

/// Whether `localASN` and `peerASN` are one AS. Either may be a text, with a point or without.
macro_rules! internal {
    () => {
        "[self.localASN].map(asn, type(asn) == int ? int(asn) : string(asn).contains('.') ? \
         int(string(asn).split('.')[0]) * 65536 + int(string(asn).split('.')[1]) : int(string(asn))) == \
         [self.peerASN].map(asn, type(asn) == int ? int(asn) : string(asn).contains('.') ? \
         int(string(asn).split('.')[0]) * 65536 + int(string(asn).split('.')[1]) : int(string(asn)))"
    };
}

/// The address of `peerAddress` without its interface.
macro_rules! peer {
    () => {
        "self.peerAddress.split('%')[0]"
    };
}

pub(crate) const BGP_PEER: [Rule; 25] = [
    Rule::at(
        ".peerAddress",
        "[has(self.peerAddress), has(self.interface), has(self.autoDiscovery), has(self.listenRange)]\
         .filter(set, set).size() == 1",
        "exactly one of peerAddress, interface, autoDiscovery and listenRange says where the peer is",
    ),
    Rule::at(
        ".peerAddress",
        concat!(
            "!has(self.peerAddress) || !isIP(",
            peer!(),
            ") || !(ip(",
            peer!(),
            ").isUnspecified() || cidr('224.0.0.0/4').containsIP(",
            peer!(),
            ") || cidr('ff00::/8').containsIP(",
            peer!(),
            "))"
        ),
        "is not the address of a router",
    ),
    Rule::at(
        ".localAddress",
        concat!(
            "!has(self.peerAddress) || !has(self.localAddress) || !isIP(self.localAddress) || !isIP(",
            peer!(),
            ") || ip(self.localAddress).family() == ip(",
            peer!(),
            ").family()"
        ),
        "is not of the family of peerAddress",
    ),
    Rule::at(
        ".localAddress",
        concat!(
            "!has(self.peerAddress) || !has(self.localAddress) || !isIP(self.localAddress) || !isIP(",
            peer!(),
            ") || !(ip(self.localAddress) == ip(",
            peer!(),
            "))"
        ),
        "is the same as peerAddress",
    ),
    Rule::at(
        ".passive",
        "!self.passive || self.listenPort != 0",
        "needs listenPort: with 0 nobody listens for the peer",
    ),
    Rule::at(
        ".listenRange",
        "!has(self.listenRange) || self.listenPort != 0",
        "needs listenPort: with 0 nobody listens for the peers",
    ),
    Rule::at(
        ".listenRange.cidr",
        "!has(self.listenRange) || !isCIDR(self.listenRange.cidr) || \
         !(cidr('224.0.0.0/4').containsIP(cidr(self.listenRange.cidr).ip()) || \
         cidr('ff00::/8').containsIP(cidr(self.listenRange.cidr).ip()))",
        "has no addresses of routers",
    ),
    Rule::at(
        ".listenRange.cidr",
        "!has(self.listenRange) || !isCIDR(self.listenRange.cidr) || \
         !cidr('fe80::/10').containsIP(cidr(self.listenRange.cidr).ip())",
        "is link-local: use interface for the router there",
    ),
    Rule::at(
        ".listenRange.cidr",
        "!has(self.listenRange) || !isCIDR(self.listenRange.cidr) || \
         cidr(self.listenRange.cidr).prefixLength() > 0 || has(self.authSecretRef) || has(self.authFile)",
        "lets anyone in who knows the AS: set authSecretRef or authFile",
    ),
    Rule::at(
        ".localAddress",
        "!has(self.listenRange) || !has(self.localAddress) || !isIP(self.localAddress) || \
         !isCIDR(self.listenRange.cidr) || \
         ip(self.localAddress).family() == cidr(self.listenRange.cidr).ip().family()",
        "is not of the family of listenRange",
    ),
    Rule::at(
        ".bfd",
        "!has(self.listenRange) || !has(self.bfd) || !self.bfd.enabled",
        "does not run to the peers of a listenRange in this version",
    ),
    Rule::at(
        ".tcpAO",
        "!has(self.listenRange) || !has(self.tcpAO)",
        "cannot sign for a listenRange in this version: use authSecretRef or authFile",
    ),
    Rule::at(
        ".ttlSecurity",
        "!has(self.ttlSecurity) || self.ebgpMultihop == 1",
        "excludes ebgpMultihop: use ttlSecurity.hops alone",
    ),
    Rule::at(
        ".ebgpMultihop",
        concat!("self.ebgpMultihop == 1 || !(", internal!(), ")"),
        "peer and node are both in one AS: this is not eBGP",
    ),
    Rule::at(
        ".authFile",
        "!has(self.authSecretRef) || !has(self.authFile)",
        "stands beside authSecretRef: only one of them holds the password",
    ),
    Rule::at(".authFile", "!has(self.authFile) || self.authFile.startsWith('/')", "is not an absolute path"),
    Rule::at(
        ".tcpAO",
        "!has(self.tcpAO) || !(has(self.authSecretRef) || has(self.authFile))",
        "excludes the TCP MD5 password of authSecretRef or authFile",
    ),
    Rule::at(
        ".role",
        concat!("!has(self.role) || !(", internal!(), ")"),
        "peer and node are both in one AS: only external peers have roles",
    ),
    Rule::at(
        ".roleRequired",
        "!self.roleRequired || has(self.role)",
        "needs role: what is the node to the peer?",
    ),
    Rule::at(
        ".addPath.receive",
        "!has(self.addPath) || !has(self.addPath.receive) || \
         self.addPath.receive.all(family, family in self.families)",
        "a family is not one of families",
    ),
    Rule::at(
        ".extendedNextHop",
        "!self.extendedNextHop || 'ipv4-unicast' in self.families",
        "is about ipv4-unicast, which is not one of families",
    ),
    Rule::at(
        ".timers.keepAliveTimeSeconds",
        "!has(self.timers.keepAliveTimeSeconds) || self.timers.holdTimeSeconds != 0",
        "has no meaning with holdTimeSeconds 0",
    ),
    Rule::at(
        ".timers.keepAliveTimeSeconds",
        "!has(self.timers.keepAliveTimeSeconds) || self.timers.holdTimeSeconds == 0 || \
         self.timers.keepAliveTimeSeconds <= self.timers.holdTimeSeconds / 3",
        "is more than a third of holdTimeSeconds",
    ),
    Rule::at(
        ".families",
        "self.families.all(a, self.families.filter(b, a == b).size() == 1)",
        "a family is there twice",
    ),
    Rule::at(
        ".addPath.receive",
        "!has(self.addPath) || !has(self.addPath.receive) || \
         self.addPath.receive.all(a, self.addPath.receive.filter(b, a == b).size() == 1)",
        "a family is there twice",
    ),
];

pub(crate) const INTERFACE: [Rule; 1] = [Rule::new(
    "self.matches('^[^/:\\\\s\\\\v\\\\x85\\\\p{Z}]{1,15}$') && self != '.' && self != '..'",
    "must be an interface name (1 to 15 characters, no / or space)",
)];

pub(crate) const TCP_AO: [Rule; 2] = [
    Rule::at(
        ".keys",
        "self.keys.all(a, self.keys.filter(b, a.sendID == b.sendID).size() == 1)",
        "a sendID is there twice",
    ),
    Rule::at(
        ".keys",
        "self.keys.all(a, self.keys.filter(b, a.receiveID == b.receiveID).size() == 1)",
        "a receiveID is there twice",
    ),
];

pub(crate) const TCP_AO_KEY: [Rule; 2] = [
    Rule::new("has(self.secretRef) != has(self.file)", "either secretRef or file says where the secret is"),
    Rule::at(".file", "!has(self.file) || self.file.startsWith('/')", "is not an absolute path"),
];

pub(crate) const EXPORT_RULE: [Rule; 3] = [
    Rule::at(
        ".ge",
        "self.ge == 0 || !isCIDR(self.cidr) || (self.ge >= cidr(self.cidr).prefixLength() && \
         self.ge <= (self.cidr.contains(':') ? 128 : 32))",
        "is outside of the lengths within cidr",
    ),
    Rule::at(
        ".le",
        "self.le == 0 || !isCIDR(self.cidr) || (self.le >= cidr(self.cidr).prefixLength() && \
         self.le <= (self.cidr.contains(':') ? 128 : 32))",
        "is outside of the lengths within cidr",
    ),
    Rule::at(".ge", "self.ge == 0 || self.le == 0 || self.ge <= self.le", "is more than le"),
];

pub(crate) const IMPORT_RULE: [Rule; 4] = {
    let [ge, le, order] = EXPORT_RULE;
    let preference = Rule::at(
        ".localPreference",
        "self.action != 'Reject' || !has(self.localPreference)",
        "has no meaning with action: Reject",
    );
    [ge, le, order, preference]
};

pub(crate) const AS_PATH_RULE: [Rule; 1] = [Rule::new(
    "has(self.contains) || has(self.originatedBy) || has(self.maxLength)",
    "says nothing; give it contains, originatedBy or maxLength, or leave it out",
)];
