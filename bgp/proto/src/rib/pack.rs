//! Drains an Adj-RIB-Out into UPDATE bytes, one message at a time, each as full as it goes.
//!
//! A message carries either withdrawals, or announcements of one attribute set through one next hop. The
//! attributes of a group are encoded once, however many messages the group takes.
use std::hash::Hash;

use bytes::BytesMut;

use super::{
    Route,
    table::{NO_ROUTE, Table},
};
use crate::{
    AfiSafi, Prefix,
    wire::{CodecContext, EncodedAttributes, NextHop, write_reach, write_withdraw},
};

#[derive(Default)]
pub(super) struct Packer {
    /// The group that was written last, its attributes encoded.
    encoded: Option<(AfiSafi, Route, EncodedAttributes)>,
}

impl Packer {
    /// Forgets the encoded attributes: the next session may encode them otherwise.
    pub(super) fn forget(&mut self) {
        self.encoded = None;
    }

    /// Writes one message of announcements; false where there are none. A group that this session cannot say is
    /// refused on the way.
    pub(super) fn announce<D: Eq + Hash>(
        &mut self,
        table: &mut Table<D>,
        say: &mut impl FnMut(AfiSafi, &D) -> Option<Route>,
        context: &CodecContext,
        out: &mut BytesMut,
    ) -> bool {
        while let Some((group, Some(desired))) = table.next_ready() {
            let route = table.said(group).cloned().or_else(|| say(table.family, desired));
            let encoded = route.and_then(|route| {
                let attributes = self.encode(table.family, &route, context)?;
                Some((route, attributes))
            });
            let Some((route, attributes)) = encoded else {
                table.refuse(group);
                continue;
            };
            let pending = table.pending_of(group);
            let written = write_reach(table.family, attributes, &route.next_hop, pending, context, out);
            table.mark_sent(group, written);
            table.set_said(group, route);
            return written > 0;
        }
        false
    }

    /// The attributes of a route as octets; `None` where this session cannot say it.
    fn encode(
        &mut self,
        family: AfiSafi,
        route: &Route,
        context: &CodecContext,
    ) -> Option<&EncodedAttributes> {
        let known = self.encoded.as_ref().is_some_and(|(of, known, _)| (*of, known) == (family, route));
        if !known {
            let attributes = EncodedAttributes::new(&route.attributes, context);
            if !can_say(family, &attributes, &route.next_hop, context) {
                return None;
            }
            self.encoded = Some((family, route.clone(), attributes));
        }
        self.encoded.as_ref().map(|(_, _, attributes)| attributes)
    }
}

/// Writes one message of withdrawals; false where there are none.
pub(super) fn withdraw<D: Eq + Hash>(
    table: &mut Table<D>,
    context: &CodecContext,
    out: &mut BytesMut,
) -> bool {
    let written = write_withdraw(table.family, table.pending_of(NO_ROUTE), context, out);
    table.mark_sent(NO_ROUTE, written);
    written > 0
}

/// Whether a message of this session has room for the attributes and a prefix (RFC 4271 section 9.2: otherwise the
/// route must not be sent), and for such a next hop. Asked of the longest prefix there is, so that the answer holds
/// for every prefix with this route.
fn can_say(
    family: AfiSafi,
    attributes: &EncodedAttributes,
    next_hop: &NextHop,
    context: &CodecContext,
) -> bool {
    let longest = Prefix::host(match family {
        AfiSafi::Ipv4Unicast => std::net::Ipv4Addr::LOCALHOST.into(),
        AfiSafi::Ipv6Unicast => std::net::Ipv6Addr::LOCALHOST.into(),
    });
    let agreed = match (family, next_hop) {
        (AfiSafi::Ipv4Unicast, NextHop::V6 { .. }) => context.ipv4_over_ipv6,
        (AfiSafi::Ipv4Unicast, NextHop::V4(_))
        | (AfiSafi::Ipv6Unicast, NextHop::V4(_) | NextHop::V6 { .. }) => true,
    };
    agreed && write_reach(family, attributes, next_hop, [longest], context, &mut BytesMut::new()) == 1
}
