//! Reads the attribute list of an UPDATE by the rules of RFC 7606: each fault has its verdict, and only what
//! cannot be forgiven is an error.
use std::net::Ipv4Addr;

use bytes::Bytes;
use nom::{
    Parser,
    combinator::consumed,
    multi::length_data,
    number::complete::{be_u8, be_u16},
};

use super::{
    super::{
        CodecContext, Finding, Notification, Reach, Unreach, Verdict,
        iana::{attribute as code, error, flag},
        parse::Parsed,
    },
    Aggregator, AsPath, PathAttributes, RawAttribute,
    multi_protocol::{self, Unreadable},
    rules::{self, Carried, Category},
    value::{Fault, aggregator, as_path, discard, fixed, large_community, list, origin, withdraw},
};
use crate::{Asn, Community, ExtendedCommunity};

/// Everything that an attribute list said.
pub(in crate::wire) struct AttributeList {
    /// The set; without meaning after a verdict of treat-as-withdraw.
    pub(in crate::wire) attributes: PathAttributes,
    /// NEXT_HOP, for the classic NLRI field.
    pub(in crate::wire) next_hop: Option<Ipv4Addr>,
    /// MP_REACH_NLRI: absent, or of a family that we do not speak, or this.
    pub(in crate::wire) reach: Option<Option<Reach>>,
    /// MP_UNREACH_NLRI, likewise.
    pub(in crate::wire) unreach: Option<Option<Unreach>>,
    /// What was wrong so far.
    pub(in crate::wire) findings: Vec<Finding>,
    /// What to send if the first fault that means treat-as-withdraw has to reset the session after all, since
    /// nothing can be withdrawn (RFC 7606 section 5.2).
    pub(in crate::wire) reset: Option<Notification>,
    seen: Seen,
}

/// Which type codes were there.
struct Seen([bool; 256]);

impl Seen {
    fn contains(&self, code: u8) -> bool {
        self.0.get(usize::from(code)).is_some_and(|seen| *seen)
    }

    /// Notes `code`; false where it had been there.
    fn insert(&mut self, code: u8) -> bool {
        self.0.get_mut(usize::from(code)).is_some_and(|seen| !std::mem::replace(seen, true))
    }
}

/// One attribute as it stands in the list.
struct Attribute<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// With flags, code and length: the data of a NOTIFICATION about it.
    whole: &'a [u8],
}

/// What AS4_PATH and AS4_AGGREGATOR said; they have a meaning only once the whole list is read.
#[derive(Default)]
struct FourOctets {
    path: Option<AsPath>,
    aggregator: Option<Aggregator>,
}

impl AttributeList {
    /// Whether an attribute with this code was there, readable or not.
    pub(in crate::wire) fn has(&self, code: u8) -> bool {
        self.seen.contains(code)
    }

    /// Whether there was any attribute besides MP_UNREACH_NLRI.
    pub(in crate::wire) fn has_more_than_unreach(&self) -> bool {
        (0..=u8::MAX).any(|code| code != code::MP_UNREACH_NLRI && self.has(code))
    }

    /// Reads the list. The error resets the session.
    pub(in crate::wire) fn decode(
        list: &[u8],
        context: &CodecContext,
    ) -> Result<AttributeList, Notification> {
        let mut this = AttributeList {
            attributes: PathAttributes::default(),
            next_hop: None,
            reach: None,
            unreach: None,
            findings: Vec::new(),
            reset: None,
            seen: Seen([false; 256]),
        };
        let mut four_octets = FourOctets::default();
        let mut rest = list;
        while !rest.is_empty() {
            let Ok((after, attribute)) = attribute(rest) else {
                this.overrun(rest)?;
                break;
            };
            this.take(&attribute, context, &mut four_octets)?;
            rest = after;
        }
        this.merge(four_octets);
        this.make_canonical();
        Ok(this)
    }

    /// Notes a fault of the attribute `code`; `whole` is what a NOTIFICATION would carry.
    pub(in crate::wire) fn note(
        &mut self,
        verdict: Verdict,
        code: u8,
        reason: &'static str,
        reset: impl FnOnce() -> Notification,
    ) {
        if verdict == Verdict::TreatAsWithdraw && self.reset.is_none() {
            self.reset = Some(reset());
        }
        self.findings.push(Finding { verdict, attribute: code, reason });
    }

    /// An attribute goes beyond the list (RFC 7606 section 4). One that would have said which prefixes are meant
    /// cannot be done without (section 3 j).
    fn overrun(&mut self, rest: &[u8]) -> Result<(), Notification> {
        let malformed = || Notification::update(error::MALFORMED_ATTRIBUTE_LIST, &[]);
        let code = match rest {
            [_, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI, ..] => return Err(malformed()),
            [_, code, ..] => *code,
            _ => 0,
        };
        self.seen.insert(code);
        let reason = "attribute overruns the attribute list (RFC 7606 section 4)";
        self.note(Verdict::TreatAsWithdraw, code, reason, malformed);
        Ok(())
    }

    fn take(
        &mut self,
        attribute: &Attribute<'_>,
        context: &CodecContext,
        four_octets: &mut FourOctets,
    ) -> Result<(), Notification> {
        let Attribute { flags, code, whole, .. } = *attribute;
        if !self.seen.insert(code) {
            if matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Err(Notification::update(error::MALFORMED_ATTRIBUTE_LIST, &[]));
            }
            let reason = "attribute appears more than once (RFC 7606 section 3 g)";
            self.note(Verdict::DiscardAttribute, code, reason, || Notification::update(0, &[]));
            return Ok(());
        }
        let Some(rule) = rules::rule(code) else { return self.unrecognized(attribute) };
        if !rule.category.accepts(flags) {
            let reason = "wrong attribute flags (RFC 7606 section 3 c)";
            self.note(rule.wrong_flags, code, reason, || Notification::update(error::ATTRIBUTE_FLAGS, whole));
            // What names prefixes is read all the same: they are what gets withdrawn.
            if !matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Ok(());
            }
        }
        let read = match rule.carried {
            Some(carried) => self.carry(attribute, carried, rule.category, context),
            None => match code {
                code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => return self.prefixes(attribute, context),
                code::AS4_PATH | code::AS4_AGGREGATOR => four_octets.read(attribute, context),
                _ => self.read(attribute, context),
            },
        };
        if let Err(Fault { verdict, subcode, reason }) = read {
            self.note(verdict, code, reason, || {
                let data = if subcode == error::MALFORMED_AS_PATH { &[] } else { whole };
                Notification::update(subcode, data)
            });
        }
        Ok(())
    }

    /// RFC 4271 sections 5 and 6.3: unknown and well-known cannot be; unknown and transitive is kept, and marked
    /// as not understood; the rest is ignored.
    fn unrecognized(&mut self, attribute: &Attribute<'_>) -> Result<(), Notification> {
        let Attribute { flags, code, value, whole } = *attribute;
        if flags & flag::OPTIONAL == 0 {
            return Err(Notification::update(error::UNRECOGNIZED_WELL_KNOWN, whole));
        }
        if flags & flag::TRANSITIVE != 0 {
            let flags = flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL;
            let value = Bytes::copy_from_slice(value);
            self.attributes.unknown.push(RawAttribute { flags, code, value });
        }
        Ok(())
    }

    fn carry(
        &mut self,
        attribute: &Attribute<'_>,
        carried: Carried,
        category: Category,
        context: &CodecContext,
    ) -> Result<(), Fault> {
        let Attribute { flags, code, value, .. } = *attribute;
        if !context.internal && !carried.from_external {
            return Err(discard("not taken from an external peer (RFC 7311 section 3.1)"));
        }
        if !(carried.is_valid)(value) {
            let (verdict, reason) = (carried.otherwise, carried.reason);
            return Err(Fault { verdict, subcode: error::OPTIONAL_ATTRIBUTE, reason });
        }
        let flags = category.flags() | flags & flag::PARTIAL;
        self.attributes.unknown.push(RawAttribute { flags, code, value: Bytes::copy_from_slice(value) });
        Ok(())
    }

    fn prefixes(&mut self, attribute: &Attribute<'_>, context: &CodecContext) -> Result<(), Notification> {
        let Attribute { code, value, whole, .. } = *attribute;
        let unreadable = |unreadable| match unreadable {
            Unreadable::Fields => Notification::update(error::MALFORMED_ATTRIBUTE_LIST, &[]),
            Unreadable::Network => Notification::update(error::OPTIONAL_ATTRIBUTE, whole),
        };
        if code == code::MP_UNREACH_NLRI {
            self.unreach = Some(multi_protocol::unreach(value, context).map_err(unreadable)?);
            return Ok(());
        }
        let reach = multi_protocol::reach(value, context).map_err(unreadable)?;
        if reach.as_ref().is_some_and(|reach| reach.next_hop.is_martian()) {
            let reason = "next hop is no host address (RFC 4271 section 6.3)";
            self.note(Verdict::TreatAsWithdraw, code, reason, || {
                Notification::update(error::OPTIONAL_ATTRIBUTE, whole)
            });
        }
        self.reach = Some(reach);
        Ok(())
    }

    /// The attributes with a field of their own (RFC 7606 section 7).
    fn read(&mut self, attribute: &Attribute<'_>, context: &CodecContext) -> Result<(), Fault> {
        let Attribute { code, value, .. } = *attribute;
        let set = &mut self.attributes;
        let internal_only = matches!(code, code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST);
        if internal_only && !context.internal {
            return Err(discard("only an internal peer may send it (RFC 7606 sections 7.5, 7.9, 7.10)"));
        }
        match code {
            code::ORIGIN => set.origin = origin(value)?,
            code::AS_PATH => set.as_path = as_path(value, context)?,
            code::NEXT_HOP => self.next_hop = Some(Ipv4Addr::from(fixed::<4>(value)?)),
            code::MED => set.med = Some(u32::from_be_bytes(fixed(value)?)),
            code::LOCAL_PREF => set.local_pref = Some(u32::from_be_bytes(fixed(value)?)),
            code::ATOMIC_AGGREGATE if value.is_empty() => set.atomic_aggregate = true,
            code::ATOMIC_AGGREGATE => {
                return Err(discard("ATOMIC_AGGREGATE has a value (RFC 7606 section 7.6)"));
            }
            code::AGGREGATOR => set.aggregator = Some(aggregator(value, context.four_octet_asn)?),
            code::COMMUNITIES => {
                set.communities = list(value, |value| Community(u32::from_be_bytes(value)))?;
            }
            code::ORIGINATOR_ID => set.originator_id = Some(Ipv4Addr::from(fixed::<4>(value)?)),
            code::CLUSTER_LIST => set.cluster_list = list(value, Ipv4Addr::from)?,
            code::EXTENDED_COMMUNITIES => set.extended_communities = list(value, ExtendedCommunity)?,
            code::LARGE_COMMUNITIES => set.large_communities = list(value, large_community)?,
            code::ONLY_TO_CUSTOMER => {
                let asn = Asn::new(u32::from_be_bytes(fixed(value)?));
                let zero = withdraw(error::OPTIONAL_ATTRIBUTE, "OTC of AS 0 (RFC 9234 section 5)");
                set.only_to_customer = Some(asn.ok_or(zero)?);
            }
            other => debug_assert!(false, "attribute {other} has a rule and no reader"),
        }
        Ok(())
    }

    /// RFC 6793 section 4.2.3.
    fn merge(&mut self, four_octets: FourOctets) {
        let set = &mut self.attributes;
        if let (Some(aggregator), Some(wide)) = (&mut set.aggregator, four_octets.aggregator) {
            if aggregator.asn != Asn::TRANS {
                return;
            }
            *aggregator = wide;
        }
        if let Some(wide) = four_octets.path {
            set.as_path = std::mem::take(&mut set.as_path).merge(wide);
        }
    }

    /// Lists without order are sorted, so that equal sets are equal values.
    fn make_canonical(&mut self) {
        fn sort<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        let set = &mut self.attributes;
        sort(&mut set.communities);
        sort(&mut set.extended_communities);
        sort(&mut set.large_communities);
        sort(&mut set.unknown);
    }
}

impl FourOctets {
    /// RFC 6793 sections 4.1 and 6: from a NEW speaker they mean nothing, and malformed they are discarded.
    fn read(&mut self, attribute: &Attribute<'_>, context: &CodecContext) -> Result<(), Fault> {
        if context.four_octet_asn {
            return Err(discard("AS4_PATH and AS4_AGGREGATOR are not for us (RFC 6793 section 4.1)"));
        }
        if attribute.code == code::AS4_AGGREGATOR {
            self.aggregator = Some(aggregator(attribute.value, true)?);
            return Ok(());
        }
        let path = AsPath::decode(attribute.value, true).map_err(discard)?.without_confederation();
        if path.segments.is_empty() {
            return Err(discard("AS4_PATH without a segment (RFC 6793 section 6)"));
        }
        self.path = Some(path);
        Ok(())
    }
}

/// Flags, code, length of one or two octets, value (RFC 4271 section 4.3).
fn attribute(input: &[u8]) -> Parsed<'_, Attribute<'_>> {
    let fields = |input| -> Parsed<'_, (u8, u8, &[u8])> {
        let (input, (flags, code)) = (be_u8, be_u8).parse(input)?;
        let (input, value) = match flags & flag::EXTENDED_LENGTH {
            0 => length_data(be_u8).parse(input)?,
            _ => length_data(be_u16).parse(input)?,
        };
        Ok((input, (flags, code, value)))
    };
    let (rest, (whole, (flags, code, value))) = consumed(fields).parse(input)?;
    Ok((rest, Attribute { flags, code, value, whole }))
}
