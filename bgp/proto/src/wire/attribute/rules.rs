//! What each attribute's flags must be and what an error in it means (RFC 7606), as one table; and the syntax of
//! the attributes that we only carry.
use super::super::{
    Verdict,
    iana::{attribute as code, flag},
};

/// The category of RFC 4271 section 5 that the flags must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    WellKnown,
    OptionalTransitive,
    OptionalNonTransitive,
}

impl Category {
    /// Whether the flags say so. The partial bit is for optional transitive attributes only (RFC 4271 section
    /// 4.3); the low four bits have no meaning.
    pub(super) const fn accepts(self, flags: u8) -> bool {
        let flags = flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
        match self {
            Category::WellKnown => flags == flag::TRANSITIVE,
            Category::OptionalTransitive => flags & !flag::PARTIAL == flag::OPTIONAL | flag::TRANSITIVE,
            Category::OptionalNonTransitive => flags == flag::OPTIONAL,
        }
    }

    /// The flags as we write them.
    pub(super) const fn flags(self) -> u8 {
        match self {
            Category::WellKnown => flag::TRANSITIVE,
            Category::OptionalTransitive => flag::OPTIONAL | flag::TRANSITIVE,
            Category::OptionalNonTransitive => flag::OPTIONAL,
        }
    }
}

/// The rules for one attribute.
pub(super) struct Rule {
    pub(super) code: u8,
    pub(super) category: Category,
    /// What wrong flags mean: treat-as-withdraw, unless its own specification says else (RFC 7606 section 3 c).
    pub(super) wrong_flags: Verdict,
    /// Set for those that we carry without giving them a meaning.
    pub(super) carried: Option<Carried>,
}

/// How an attribute that we only carry is looked at.
#[derive(Clone, Copy)]
pub(super) struct Carried {
    /// Whether the value can be read at all.
    pub(super) is_valid: fn(&[u8]) -> bool,
    /// What a value that cannot be read means.
    pub(super) otherwise: Verdict,
    /// Said with it.
    pub(super) reason: &'static str,
    /// Whether an external peer may send it.
    pub(super) from_external: bool,
}

/// The rule for a code; `None` where we do not recognize it.
pub(super) fn rule(code: u8) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

const fn typed(code: u8, category: Category) -> Rule {
    Rule { code, category, wrong_flags: Verdict::TreatAsWithdraw, carried: None }
}

/// An attribute whose errors, wrong flags too, have the same answer.
const fn carried(code: u8, category: Category, is_valid: fn(&[u8]) -> bool, otherwise: Verdict) -> Rule {
    let reason = match code {
        code::PMSI_TUNNEL => "malformed PMSI_TUNNEL (RFC 6514 section 5)",
        code::TUNNEL_ENCAPSULATION => "malformed Tunnel Encapsulation (RFC 9012 section 13)",
        code::IPV6_EXTENDED_COMMUNITIES => "length is not a multiple of 20 (RFC 7606 section 7.15)",
        code::AIGP => "no AIGP TLV of 11 octets (RFC 7311 section 3)",
        code::LINK_STATE => "malformed BGP-LS TLV (RFC 9552 section 8.2.2)",
        _ => "malformed Prefix-SID TLV (RFC 8669 section 6)",
    };
    // AIGP is off by default on external sessions (RFC 7311 section 3.1).
    let from_external = code != code::AIGP;
    let carried = Some(Carried { is_valid, otherwise, reason, from_external });
    Rule { code, category, wrong_flags: otherwise, carried }
}

static RULES: [Rule; 23] = {
    use Category::{OptionalNonTransitive, OptionalTransitive, WellKnown};
    use Verdict::{DiscardAttribute, TreatAsWithdraw};
    [
        typed(code::ORIGIN, WellKnown),
        typed(code::AS_PATH, WellKnown),
        typed(code::NEXT_HOP, WellKnown),
        typed(code::MED, OptionalNonTransitive),
        typed(code::LOCAL_PREF, WellKnown),
        typed(code::ATOMIC_AGGREGATE, WellKnown),
        typed(code::AGGREGATOR, OptionalTransitive),
        typed(code::COMMUNITIES, OptionalTransitive),
        typed(code::ORIGINATOR_ID, OptionalNonTransitive),
        typed(code::CLUSTER_LIST, OptionalNonTransitive),
        typed(code::MP_REACH_NLRI, OptionalNonTransitive),
        typed(code::MP_UNREACH_NLRI, OptionalNonTransitive),
        typed(code::EXTENDED_COMMUNITIES, OptionalTransitive),
        typed(code::AS4_PATH, OptionalTransitive),
        typed(code::AS4_AGGREGATOR, OptionalTransitive),
        typed(code::LARGE_COMMUNITIES, OptionalTransitive),
        typed(code::ONLY_TO_CUSTOMER, OptionalTransitive),
        carried(code::PMSI_TUNNEL, OptionalTransitive, pmsi_tunnel, TreatAsWithdraw),
        carried(code::TUNNEL_ENCAPSULATION, OptionalTransitive, tunnel_encapsulation, TreatAsWithdraw),
        carried(code::IPV6_EXTENDED_COMMUNITIES, OptionalTransitive, ipv6_communities, TreatAsWithdraw),
        carried(code::AIGP, OptionalNonTransitive, aigp, DiscardAttribute),
        carried(code::LINK_STATE, OptionalNonTransitive, link_state, DiscardAttribute),
        carried(code::PREFIX_SID, OptionalTransitive, prefix_sid, DiscardAttribute),
    ]
};

/// Splits a value by its first octets, a big-endian length of `N` octets.
fn length_then_value<const N: usize>(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = value.split_first_chunk::<N>()?;
    let length = length.iter().fold(0_usize, |sum, octet| (sum << 8) | usize::from(*octet));
    rest.split_at_checked(length)
}

/// Whether `value` is a list of items, each of which `item` splits off the front.
fn is_list_of(value: &[u8], item: impl Fn(&[u8]) -> Option<&[u8]>) -> bool {
    let mut rest = value;
    while !rest.is_empty() {
        match item(rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Flags, tunnel type, label, identifier. The types of RFC 6514 only, as no family that we speak uses others;
/// ingress replication (6) is an address.
fn pmsi_tunnel(value: &[u8]) -> bool {
    match value {
        [_, 6, _, _, _, address @ ..] => matches!(address.len(), 4 | 16),
        [_, kind, _, _, _, ..] => *kind <= 7,
        _ => false,
    }
}

/// Tunnels (type 2, length 2) of sub-TLVs, whose length has two octets from type 128 on (RFC 9012 section 2).
fn tunnel_encapsulation(value: &[u8]) -> bool {
    fn sub_tlv(input: &[u8]) -> Option<&[u8]> {
        let (&kind, rest) = input.split_first()?;
        let split = if kind < 128 { length_then_value::<1>(rest) } else { length_then_value::<2>(rest) };
        split.map(|(_, after)| after)
    }
    !value.is_empty()
        && is_list_of(value, |tunnel| {
            let (inner, after) = length_then_value::<2>(tunnel.get(2..)?)?;
            is_list_of(inner, sub_tlv).then_some(after)
        })
}

fn ipv6_communities(value: &[u8]) -> bool {
    !value.is_empty() && value.len().is_multiple_of(20)
}

/// TLVs (type 1, length 2 that counts the whole TLV); the one of type 1 has 11 octets and must be there.
fn aigp(value: &[u8]) -> bool {
    let found = std::cell::Cell::new(false);
    let list = is_list_of(value, |input| {
        let (&[kind, high, low], _) = input.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (_, after) = input.split_at_checked(length)?;
        let fits = length >= 3 && (kind != 1 || length == 11);
        found.set(found.get() || kind == 1);
        fits.then_some(after)
    });
    list && found.get()
}

/// TLVs with a type and a length of two octets each.
fn link_state(value: &[u8]) -> bool {
    !value.is_empty()
        && is_list_of(value, |tlv| length_then_value::<2>(tlv.get(2..)?).map(|(_, after)| after))
}

/// TLVs (type 1, length 2); a label index (type 1) has seven octets.
fn prefix_sid(value: &[u8]) -> bool {
    !value.is_empty()
        && is_list_of(value, |tlv| {
            let (&kind, rest) = tlv.split_first()?;
            let (inner, after) = length_then_value::<2>(rest)?;
            (kind != 1 || inner.len() == 7).then_some(after)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_rule() {
        for rule in &RULES {
            assert_eq!(RULES.iter().filter(|other| other.code == rule.code).count(), 1, "{}", rule.code);
            assert!(rule.category.accepts(rule.category.flags()));
        }
    }

    #[test]
    fn valid_values_of_carried_attributes_are_valid() {
        assert!(pmsi_tunnel(&[0, 6, 0, 0, 0, 10, 0, 0, 2]) && pmsi_tunnel(&[0, 0, 0, 0, 0]));
        assert!(tunnel_encapsulation(&[0, 8, 0, 4, 128, 0, 1, 7]));
        assert!(tunnel_encapsulation(&[0, 8, 0, 3, 4, 1, 7, 0, 9, 0, 0]));
        assert!(ipv6_communities(&[0; 40]));
        assert!(aigp(&[1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 10]));
        assert!(aigp(&[9, 0, 3, 1, 0, 11, 0, 0, 0, 0, 0, 0, 0, 10]));
        assert!(link_state(&[4, 0, 0, 1, 0]));
        assert!(prefix_sid(&[1, 0, 7, 0, 0, 0, 0, 0, 0, 1, 5, 0, 0]));
    }
}
