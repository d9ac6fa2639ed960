//! The chains of the table. What each is for is told in docs/egress.md.
use std::sync::Arc;

use super::{Treatment, Treatments, named};
use crate::nat::{
    Fate,
    ruleset::{Base, Chain, Comparison, Expression, Family, Hook, Rule, Ruleset},
};

pub(in crate::nat) const STRAY: &str = "stray";
pub(in crate::nat) const UNSOLICITED: &str = "unsolicited";
pub(in crate::nat) const ADDRESSES: &str = "addresses";
pub(super) const UPLINKS: &str = "uplinks";
pub(super) const INSIDE: &str = "inside";
pub(super) const PODS: &str = "pods";
/// From egress IPs to the counters of what leaves as them.
pub(in crate::nat) const OUTS: &str = "outs";

/// `mangle`: before the kernel gives a port of the node away by a Service's translation of destinations.
const EARLY: i32 = -150;
/// After `dstnat`: what a Service's address stands for is known then, and routing has not been decided yet.
const CLASSIFY: i32 = -100 + 10;
/// Before `srcnat`, where kube-proxy and CNI plugins masquerade: the first translation stands.
const TRANSLATE: i32 = 100 - 10;
/// All translation of sources is done at 100.
const CHECK: i32 = 100 + 10;

const NFPROTO: [(Family, u8); 2] = [(Family::V4, 2), (Family::V6, 10)];
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;
/// Router solicitation to redirect (RFC 4861).
const NEIGHBOUR_DISCOVERY: (u8, u8) = (133, 137);
const RTN_LOCAL: u32 = 2;
/// `IPS_SRC_NAT` of the kernel's nf_conntrack_common.h: the flow's source was translated.
const SOURCE_TRANSLATED: u32 = 1 << 4;
/// The kernel's limit for a counter's name is 255.
const NAME_LENGTH: usize = 200;

/// Names of sets that rules look into.
#[derive(Default)]
pub(super) struct Names {
    pub(super) inside: Vec<(Family, Arc<str>)>,
    pub(super) pods: Vec<(Family, Arc<str>)>,
    pub(super) ways: Vec<Way>,
}

/// From a packet to its treatment by the maps of one class.
pub(super) struct Way {
    pub(super) family: Family,
    /// `None`: everywhere.
    pub(super) to: Option<Arc<str>>,
    pub(super) except: Option<Arc<str>>,
    /// Hosts, then prefixes.
    pub(super) sources: Vec<Arc<str>>,
    pub(super) snats: Vec<Arc<str>>,
}

/// The counter of what has left for an Egress.
pub(in crate::nat) fn out(egress: &str) -> Arc<str> {
    counter("out", egress)
}

/// The counter of what was dropped for want of a gateway.
pub(in crate::nat) fn dropped(egress: &str) -> Arc<str> {
    counter("dropped", egress)
}

fn counter(what: &str, egress: &str) -> Arc<str> {
    if egress.len() <= NAME_LENGTH {
        return format!("{what}/{egress}").into();
    }
    let cut = (0..=NAME_LENGTH).rev().find(|at| egress.is_char_boundary(*at)).unwrap_or(0);
    format!("{what}/{}/{:08x}", egress.get(..cut).unwrap_or_default(), super::digest(&egress)).into()
}

/// All chains.
pub(super) fn add(table: &mut Ruleset, names: &Names, treatments: &Treatments<'_>, mask: u32) {
    for (treatment, name) in treatments.iter() {
        let rules = Some(mark_rules(treatment, mask).into());
        table.chains.insert(Arc::clone(name), Chain { base: None, rules });
    }
    let base = |nat, hook, priority| Some(Base { nat, hook, priority });
    let mut chain = |name: &str, base, rules: Vec<Rule>| {
        table.chains.insert(name.into(), Chain { base, rules: Some(rules.into()) });
    };
    chain("unsolicited", base(false, Hook::Prerouting, EARLY), unsolicited());
    chain("classify", base(false, Hook::Prerouting, CLASSIFY), classify(names));
    chain("translate", base(true, Hook::Postrouting, TRANSLATE), translate(names, mask));
    chain("check", base(false, Hook::Postrouting, CHECK), check(mask));
}

fn mark_rules(treatment: &Treatment<'_>, mask: u32) -> Vec<Rule> {
    let egress = treatment.egress;
    let comment = |fate: Fate| match fate {
        Fate::Here => format!("egress {egress}: leaves here"),
        Fate::Away { slot } => format!("egress {egress}: to gateway slot {slot}"),
        Fate::Drop => format!("egress {egress}: no gateway"),
        Fate::Leave => format!("egress {egress}: left alone"),
    };
    let rule = |mut expressions: Vec<Expression>, fate: Fate| {
        expressions.extend(fate_steps(egress, fate, mask));
        Rule { expressions, comment: Some(comment(fate)) }
    };
    if treatment.local == treatment.transit {
        return vec![rule(Vec::new(), treatment.local)];
    }
    vec![rule(uplink(), treatment.transit), rule(Vec::new(), treatment.local)]
}

fn fate_steps(egress: &str, fate: Fate, mask: u32) -> Vec<Expression> {
    let mark = |bits| {
        vec![
            Expression::Mark,
            Expression::Bits { mask: !mask, bits },
            Expression::SetMark,
            Expression::Accept,
        ]
    };
    match fate {
        Fate::Here => mark(mask),
        Fate::Away { slot } => mark(u32::from(slot).checked_shl(mask.trailing_zeros()).unwrap_or(0) & mask),
        Fate::Drop => vec![Expression::Count(dropped(egress)), Expression::Drop],
        Fate::Leave => vec![Expression::Accept],
    }
}

fn unsolicited() -> Vec<Rule> {
    let (first, last) = NEIGHBOUR_DISCOVERY;
    let mut rules = vec![reply()];
    rules.push(rule([
        icmp(Family::V6),
        vec![
            Expression::IcmpType,
            Expression::Compare(Comparison::AtLeast, vec![first]),
            Expression::Compare(Comparison::AtMost, vec![last]),
            Expression::Accept,
        ],
    ]));
    for (family, echo) in [(Family::V4, ECHO_REQUEST), (Family::V6, ECHO_REQUEST_V6)] {
        let ours = || into(family, Expression::Destination(family), named(ADDRESSES, family), false);
        let echo = vec![
            Expression::IcmpType,
            Expression::Compare(Comparison::Equal, vec![echo]),
            Expression::Accept,
        ];
        rules.push(rule([ours(), icmp(family), echo]));
        rules.push(rule([ours(), vec![Expression::Count(UNSOLICITED.into()), Expression::Drop]]));
    }
    rules
}

fn classify(names: &Names) -> Vec<Rule> {
    let mut rules = vec![reply()];
    for (family, inside) in &names.inside {
        let destination = Expression::Destination(*family);
        rules.push(rule([into(*family, destination, Arc::clone(inside), false), vec![Expression::Accept]]));
    }
    rules.push(rule([vec![
        Expression::DestinationType,
        Expression::Compare(Comparison::Equal, RTN_LOCAL.to_ne_bytes().to_vec()),
        Expression::Accept,
    ]]));
    for way in &names.ways {
        for map in &way.sources {
            let treat = vec![Expression::Source(way.family), Expression::GotoMap(Arc::clone(map))];
            rules.push(rule([destined(way), treat]));
        }
    }
    for (family, pods) in &names.pods {
        let source = into(*family, Expression::Source(*family), Arc::clone(pods), false);
        rules.push(rule([uplink(), source, vec![Expression::Count(STRAY.into()), Expression::Drop]]));
    }
    rules
}

fn translate(names: &Names, mask: u32) -> Vec<Rule> {
    let mut rules = vec![rule([marked(mask, Comparison::Equal, 0), vec![Expression::Accept]])];
    for way in &names.ways {
        for map in &way.snats {
            let snat = vec![
                Expression::Source(way.family),
                Expression::Map(Arc::clone(map)),
                Expression::Snat(way.family),
            ];
            rules.push(rule([marked(mask, Comparison::Equal, mask), destined(way), snat]));
        }
    }
    // On its way to a gateway a packet keeps its source: translated to itself, nobody masquerades it after us.
    rules.extend(Family::BOTH.map(|family| {
        let to_itself = vec![Expression::Source(family), Expression::Snat(family)];
        rule([marked(mask, Comparison::NotEqual, mask), network_family(family), to_itself])
    }));
    rules
}

/// What says "here" leaves as an egress IP or not at all, and what is on its way to a gateway as what it is: flows that are
/// older than the rules, and packets that belong to no flow, are not translated as they should be.
fn check(mask: u32) -> Vec<Rule> {
    let stray = || vec![Expression::Count(STRAY.into()), Expression::Drop];
    let mut rules = vec![rule([marked(mask, Comparison::Equal, 0), vec![Expression::Accept]])];
    rules.extend(Family::BOTH.map(|family| {
        let count =
            vec![Expression::Source(family), Expression::CountMap(named(OUTS, family)), Expression::Accept];
        rule([marked(mask, Comparison::Equal, mask), network_family(family), count])
    }));
    rules.push(rule([marked(mask, Comparison::Equal, mask), stray()]));
    rules.push(rule([
        vec![
            Expression::FlowStatus,
            Expression::Bits { mask: SOURCE_TRANSLATED, bits: 0 },
            Expression::Compare(Comparison::NotEqual, vec![0; 4]),
        ],
        stray(),
    ]));
    rules
}

fn rule<const N: usize>(steps: [Vec<Expression>; N]) -> Rule {
    Rule { expressions: steps.concat(), comment: None }
}

/// Packets of the other direction are none of ours: the flow was decided when it began.
fn reply() -> Rule {
    rule([vec![
        Expression::FlowDirection,
        Expression::Compare(Comparison::Equal, vec![1]),
        Expression::Accept,
    ]])
}

fn network_family(family: Family) -> Vec<Expression> {
    let number = NFPROTO.iter().filter(|(of, _)| *of == family).map(|(_, number)| *number);
    vec![Expression::NetworkFamily, Expression::Compare(Comparison::Equal, number.collect())]
}

fn icmp(family: Family) -> Vec<Expression> {
    let protocol = match family {
        Family::V4 => ICMP,
        Family::V6 => ICMPV6,
    };
    let transport =
        vec![Expression::TransportProtocol, Expression::Compare(Comparison::Equal, vec![protocol])];
    [network_family(family), transport].concat()
}

fn uplink() -> Vec<Expression> {
    vec![Expression::Incoming, Expression::In { set: UPLINKS.into(), not: false }]
}

/// Matches when what `load` loads is, or is not, in the set.
fn into(family: Family, load: Expression, set: Arc<str>, not: bool) -> Vec<Expression> {
    let mut steps = network_family(family);
    steps.extend([load, Expression::In { set, not }]);
    steps
}

fn destined(way: &Way) -> Vec<Expression> {
    let mut steps = network_family(way.family);
    for (set, not) in [(&way.to, false), (&way.except, true)] {
        if let Some(set) = set {
            steps.push(Expression::Destination(way.family));
            steps.push(Expression::In { set: Arc::clone(set), not });
        }
    }
    steps
}

fn marked(mask: u32, comparison: Comparison, bits: u32) -> Vec<Expression> {
    vec![
        Expression::Mark,
        Expression::Bits { mask, bits: 0 },
        Expression::Compare(comparison, bits.to_ne_bytes().to_vec()),
    ]
}
