//! Writes attributes: in the order of their codes, with a long length only where it is needed.
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    super::{
        CodecContext, frame,
        iana::{attribute as code, flag},
    },
    Aggregator, AsPath, NextHop, Origin, PathAttributes, RawAttribute,
    rules::Category,
};

/// An attribute set as octets, made once for all the messages that carry it. NEXT_HOP has its place in the
/// order but differs by message; so it is put in at writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedAttributes {
    before_next_hop: Bytes,
    after_next_hop: Bytes,
}

impl EncodedAttributes {
    /// Encodes the set for a session. LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are written for internal peers
    /// only (RFC 4271 section 5.1.5, RFC 4456 section 8).
    pub fn new(attributes: &PathAttributes, context: &CodecContext) -> EncodedAttributes {
        let mut out = BytesMut::new();
        let mut raw = attributes.unknown.as_slice();
        put_raw_below(code::ORIGIN, &mut raw, &mut out);
        attributes.put_mandatory(context, &mut out);
        let before_next_hop = out.split().freeze();
        attributes.put_optional(context, &mut raw, &mut out);
        EncodedAttributes { before_next_hop, after_next_hop: out.freeze() }
    }

    /// How many octets the set takes, without NEXT_HOP.
    pub fn length(&self) -> usize {
        self.before_next_hop.len().saturating_add(self.after_next_hop.len())
    }

    /// Writes the set, NEXT_HOP in its place where there is one.
    pub(in crate::wire) fn put(&self, next_hop: Option<std::net::Ipv4Addr>, out: &mut BytesMut) {
        out.put_slice(&self.before_next_hop);
        if let Some(address) = next_hop {
            put(Category::WellKnown.flags(), code::NEXT_HOP, out, |out| out.put_slice(&address.octets()));
        }
        out.put_slice(&self.after_next_hop);
    }
}

impl PathAttributes {
    fn put_mandatory(&self, context: &CodecContext, out: &mut BytesMut) {
        let flags = Category::WellKnown.flags();
        put(flags, code::ORIGIN, out, |out| {
            out.put_u8(match self.origin {
                Origin::Igp => 0,
                Origin::Egp => 1,
                Origin::Incomplete => 2,
            });
        });
        put(flags, code::AS_PATH, out, |out| self.as_path.encode(context.four_octet_asn, out));
    }

    fn put_optional(&self, context: &CodecContext, raw: &mut &[RawAttribute], out: &mut BytesMut) {
        const WELL_KNOWN: u8 = Category::WellKnown.flags();
        const TRANSITIVE: u8 = Category::OptionalTransitive.flags();
        const NON_TRANSITIVE: u8 = Category::OptionalNonTransitive.flags();
        let mut put = |flags, code, value: &dyn Fn(&mut BytesMut)| {
            put_raw_below(code, raw, out);
            put(flags, code, out, value);
        };
        if let Some(med) = self.med {
            put(NON_TRANSITIVE, code::MED, &|out| out.put_u32(med));
        }
        if let Some(local_pref) = self.local_pref.filter(|_| context.internal) {
            put(WELL_KNOWN, code::LOCAL_PREF, &|out| out.put_u32(local_pref));
        }
        if self.atomic_aggregate {
            put(WELL_KNOWN, code::ATOMIC_AGGREGATE, &|_| {});
        }
        if let Some(aggregator) = self.aggregator {
            put(TRANSITIVE, code::AGGREGATOR, &|out| aggregator.encode(context.four_octet_asn, out));
        }
        if !self.communities.is_empty() {
            put(TRANSITIVE, code::COMMUNITIES, &|out| {
                self.communities.iter().for_each(|community| out.put_u32(community.0));
            });
        }
        if let Some(id) = self.originator_id.filter(|_| context.internal) {
            put(NON_TRANSITIVE, code::ORIGINATOR_ID, &|out| out.put_slice(&id.octets()));
        }
        if !self.cluster_list.is_empty() && context.internal {
            put(NON_TRANSITIVE, code::CLUSTER_LIST, &|out| {
                self.cluster_list.iter().for_each(|id| out.put_slice(&id.octets()));
            });
        }
        if !self.extended_communities.is_empty() {
            put(TRANSITIVE, code::EXTENDED_COMMUNITIES, &|out| {
                self.extended_communities.iter().for_each(|community| out.put_slice(&community.0));
            });
        }
        if let Some(path) = as4_path(&self.as_path, context) {
            put(TRANSITIVE, code::AS4_PATH, &|out| path.encode(true, out));
        }
        if let Some(aggregator) = self.aggregator.filter(|aggregator| aggregator.needs_as4(context)) {
            put(TRANSITIVE, code::AS4_AGGREGATOR, &|out| aggregator.encode(true, out));
        }
        if !self.large_communities.is_empty() {
            put(TRANSITIVE, code::LARGE_COMMUNITIES, &|out| {
                for community in &self.large_communities {
                    out.put_u32(community.global);
                    out.put_u32(community.local1);
                    out.put_u32(community.local2);
                }
            });
        }
        if let Some(asn) = self.only_to_customer {
            put(TRANSITIVE, code::ONLY_TO_CUSTOMER, &|out| out.put_u32(asn.number()));
        }
        raw.iter().for_each(|attribute| put_raw(attribute, out));
    }
}

/// AS4_PATH for an OLD speaker, where AS_PATH alone would lose numbers (RFC 6793 section 4.2.2).
fn as4_path(path: &AsPath, context: &CodecContext) -> Option<AsPath> {
    let needed = !context.four_octet_asn && path.is_wide();
    needed.then(|| path.clone().without_confederation()).filter(|path| !path.segments.is_empty())
}

impl Aggregator {
    fn needs_as4(&self, context: &CodecContext) -> bool {
        !context.four_octet_asn && self.asn.number() > u32::from(u16::MAX)
    }

    fn encode(&self, four_octets: bool, out: &mut BytesMut) {
        match four_octets {
            true => out.put_u32(self.asn.number()),
            false => out.put_u16(self.asn.two_octets()),
        }
        out.put_slice(&self.address.octets());
    }
}

impl NextHop {
    /// The next hop field of MP_REACH_NLRI.
    pub(in crate::wire) fn encode(&self, out: &mut BytesMut) {
        match self {
            NextHop::V4(address) => out.put_slice(&address.octets()),
            NextHop::V6 { global, link_local } => {
                out.put_slice(&global.octets());
                if let Some(link_local) = link_local {
                    out.put_slice(&link_local.octets());
                }
            }
        }
    }

    pub(in crate::wire) const fn encoded_length(&self) -> u8 {
        match self {
            NextHop::V4(_) => 4,
            NextHop::V6 { link_local: None, .. } => 16,
            NextHop::V6 { link_local: Some(_), .. } => 32,
        }
    }
}

/// The raw attributes that stand before `code` in the order.
fn put_raw_below(code: u8, raw: &mut &[RawAttribute], out: &mut BytesMut) {
    while let Some((first, rest)) = raw.split_first().filter(|(first, _)| first.code < code) {
        put_raw(first, out);
        *raw = rest;
    }
}

fn put_raw(attribute: &RawAttribute, out: &mut BytesMut) {
    put(attribute.flags & !flag::EXTENDED_LENGTH, attribute.code, out, |out| {
        out.put_slice(&attribute.value);
    });
}

/// The octets of flags, code and a length of two octets.
const LONG_HEADER: usize = 4;

/// One attribute, its value by `value`.
fn put(flags: u8, code: u8, out: &mut BytesMut, value: impl FnOnce(&mut BytesMut)) {
    let start = begin(flags, code, out);
    value(out);
    finish(start, out);
}

/// Writes the header of an attribute whose length [`finish`] fills in; returns where it begins.
pub(in crate::wire) fn begin(flags: u8, code: u8, out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_slice(&[flags | flag::EXTENDED_LENGTH, code, 0, 0]);
    start
}

/// Fills in the length of the attribute at `start`, which was begun with a long one; short values, of up to 255
/// octets, move up by the octet that they do not need.
pub(in crate::wire) fn finish(start: usize, out: &mut BytesMut) {
    let length = out.len().saturating_sub(start).saturating_sub(LONG_HEADER);
    let Ok(short) = u8::try_from(length) else {
        return frame::put_length(start.saturating_add(2), length, out);
    };
    if let Some([flags, _, first, rest @ ..]) = out.get_mut(start..) {
        *flags &= !flag::EXTENDED_LENGTH;
        *first = short;
        rest.copy_within(1.., 0);
    }
    out.truncate(out.len().saturating_sub(1));
}
