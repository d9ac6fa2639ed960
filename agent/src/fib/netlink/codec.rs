//! Between rtnetlink messages and the plain values of [`kernel`](super::super::kernel).
use std::net::IpAddr;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NlasIterator, Parseable, parse_string};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
        RouteScope, RouteType, RouteVia,
    },
    rule::{RuleAction as RuleKind, RuleAttribute, RuleFlags, RuleMessage},
};
use plainroute_bgp::{AfiSafi, Prefix};

use super::super::{
    RouteKey, Rule, RuleAction,
    kernel::{Hop, KernelRoute, Link, RouteKind},
};

/// `IFLA_IFNAME` of the kernel's if_link.h.
const IFLA_IFNAME: u16 = 3;
const LINK_HEADER_LENGTH: usize = 16;

/// One message of a datagram: its type, flags, sequence number, sender's port and payload.
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of a datagram; it ends early at one that is cut short.
pub(super) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(datagram).ok()?;
        let frame = Frame {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            port: buffer.port_number(),
            payload: buffer.payload(),
        };
        let length = (buffer.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or(&[]);
        Some(frame)
    })
}

/// Appends a message to a datagram.
pub(super) fn emit(datagram: &mut Vec<u8>, sequence: u32, flags: u16, message: RouteNetlinkMessage) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = datagram.len();
    datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(space) = datagram.get_mut(start..) {
        message.serialize(space);
    }
}

/// Asks for the routes of one family, of one table or of one protocol (0: any).
pub(super) fn route_query(family: AfiSafi, table: u32, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    message.header.protocol = protocol.into();
    set_table(&mut message, table);
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for the links, without their statistics.
pub(super) fn link_query() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for the addresses of both families.
pub(super) fn address_query() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// A link and its index. Only header and name are read, so that no exotic attribute can hide a link.
pub(super) fn link(payload: &[u8]) -> Option<(u32, Link)> {
    let header = LinkHeader::parse(payload).ok()?;
    let attributes = NlasIterator::new(payload.get(LINK_HEADER_LENGTH..)?);
    let mut attributes = attributes.filter_map(Result::ok);
    let name = attributes.find(|attribute| attribute.kind() == IFLA_IFNAME)?;
    let link = Link {
        name: parse_string(name.value()).ok()?,
        enabled: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        loopback: header.flags.contains(LinkFlags::Loopback),
        addresses: Vec::new(),
    };
    Some((header.index, link))
}

/// An address with its length and its link's index; `None` when the kernel does not use it (yet).
pub(super) fn address(payload: &[u8]) -> Option<(u32, IpAddr, u8)> {
    let message = AddressMessage::parse(payload).ok()?;
    let flags = message.header.flags;
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    if flags.intersects(unusable) && !flags.contains(AddressHeaderFlags::Optimistic) {
        return None;
    }
    let mut local = None;
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(value),
            AddressAttribute::Address(value) => address = Some(value),
            _ => {}
        }
    }
    // On a point-to-point link `address` is the other end's.
    Some((message.header.index, local.or(address)?, message.header.prefix_len))
}

/// What can be told of a route message without its attributes: table (0 when beyond 255), and whether it is cloned.
pub(super) fn route_header(payload: &[u8]) -> Option<(u8, bool)> {
    let header = RouteHeader::parse(payload).ok()?;
    Some((header.table, header.flags.contains(RouteFlags::Cloned)))
}

/// A route; `None` for what is no route of IPv4 or IPv6, and for cached clones.
pub(super) fn route(payload: &[u8]) -> Option<KernelRoute> {
    let message = RouteMessage::parse(payload).ok()?;
    let header = &message.header;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => [0u8; 4].into(),
        AddressFamily::Inet6 => [0u8; 16].into(),
        _ => return None,
    };
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut destination = unspecified;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut preferred_source = None;
    let mut other_attributes = header.source_prefix_length != 0;
    let mut single =
        Hop { gateway: None, interface: None, weight: 0, onlink: header.flags.contains(RouteFlags::Onlink) };
    let mut several = None;
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(value) => destination = plain(&value)?,
            RouteAttribute::Table(value) => table = value,
            RouteAttribute::Priority(value) => metric = value,
            RouteAttribute::PrefSource(value) => preferred_source = plain(&value),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => single.gateway = gateway(&attribute),
            RouteAttribute::Oif(value) => single.interface = Some(value),
            RouteAttribute::MultiPath(hops) => several = Some(hops.iter().map(hop).collect::<Vec<_>>()),
            RouteAttribute::Metrics(values) => other_attributes |= !values.is_empty(),
            RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::NhId(_)
            | RouteAttribute::Realm(_)
            | RouteAttribute::Expires(_) => other_attributes = true,
            // Cache statistics, IPv6 router preference and the like do not change where packets go.
            _ => {}
        }
    }
    let kind = kind(header.kind);
    let mut hops = match kind {
        RouteKind::Unicast | RouteKind::Local => several.unwrap_or_else(|| vec![single]),
        // IPv6 shows rejecting routes on the loopback device.
        _ => Vec::new(),
    };
    hops.sort_unstable();
    Some(KernelRoute {
        key: RouteKey { table, prefix: Prefix::new(destination, header.destination_prefix_length).ok()? },
        tos: header.tos,
        metric,
        protocol: header.protocol.into(),
        kind,
        scope: header.scope.into(),
        hops,
        preferred_source,
        other_attributes,
    })
}

/// The message that names a route in full, to add, to replace by and to remove.
pub(super) fn route_message(route: &KernelRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let prefix = route.key.prefix;
    message.header.address_family = address_family(prefix.family());
    message.header.destination_prefix_length = prefix.length();
    message.header.protocol = route.protocol.into();
    message.header.scope = RouteScope::from(route.scope);
    message.header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Local => RouteType::Local,
        RouteKind::Other(number) => RouteType::from(number),
    };
    set_table(&mut message, route.key.table);
    message.attributes.push(RouteAttribute::Destination(prefix.address().into()));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    let way = |gateway: IpAddr| match (gateway, prefix.family()) {
        // RFC 8950: an IPv4 route through an IPv6 neighbour.
        (IpAddr::V6(_), AfiSafi::Ipv4Unicast) => RouteAttribute::Via(RouteVia::from(gateway)),
        (IpAddr::V4(_) | IpAddr::V6(_), _) => RouteAttribute::Gateway(gateway.into()),
    };
    match route.hops.as_slice() {
        [] => {}
        [hop] => {
            message.attributes.extend(hop.gateway.map(way));
            message.attributes.extend(hop.interface.map(RouteAttribute::Oif));
        }
        several => {
            let several = several.iter().map(|hop| {
                let mut next_hop = RouteNextHop::default();
                next_hop.hops = hop.weight;
                next_hop.interface_index = hop.interface.unwrap_or(0);
                next_hop.attributes.extend(hop.gateway.map(way));
                next_hop
            });
            message.attributes.push(RouteAttribute::MultiPath(several.collect()));
        }
    }
    message
}

/// Asks for the policy rules of one family.
pub(super) fn rule_query(family: AfiSafi) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(family);
    RouteNetlinkMessage::GetRule(message)
}

/// A rule with its protocol; `None` for one of another shape than ours have, which is never ours.
pub(super) fn rule(payload: &[u8]) -> Option<(u8, Rule)> {
    let message = RuleMessage::parse(payload).ok()?;
    let family = match message.header.family {
        AddressFamily::Inet => AfiSafi::Ipv4Unicast,
        AddressFamily::Inet6 => AfiSafi::Ipv6Unicast,
        _ => return None,
    };
    let header = &message.header;
    if header.dst_len != 0
        || header.src_len != 0
        || header.tos != 0
        || header.flags.contains(RuleFlags::Invert)
    {
        return None;
    }
    let (mut protocol, mut priority, mut mark, mut mask) = (0, 0, None, None);
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Protocol(value) => protocol = value.into(),
            RuleAttribute::Priority(value) => priority = value,
            RuleAttribute::FwMark(value) => mark = Some(value),
            RuleAttribute::FwMask(value) => mask = Some(value),
            RuleAttribute::Table(value) => table = value,
            // What the kernel says of every rule.
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    let action = match header.action {
        RuleKind::ToTable => RuleAction::Lookup(table),
        RuleKind::Blackhole => RuleAction::Blackhole,
        _ => return None,
    };
    Some((protocol, Rule { family, priority, mark: mark?, mask: mask?, action }))
}

/// The message that names a rule in full, to add and to remove.
pub(super) fn rule_message(rule: &Rule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Protocol(protocol.into()),
    ];
    match rule.action {
        RuleAction::Lookup(table) => {
            message.header.action = RuleKind::ToTable;
            message.attributes.push(RuleAttribute::Table(table));
        }
        RuleAction::Blackhole => message.header.action = RuleKind::Blackhole,
    }
    message
}

fn hop(hop: &RouteNextHop) -> Hop {
    Hop {
        gateway: hop.attributes.iter().find_map(gateway),
        interface: Some(hop.interface_index),
        weight: hop.hops,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => plain(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        RouteType::Local => RouteKind::Local,
        other => RouteKind::Other(other.into()),
    }
}

fn address_family(family: AfiSafi) -> AddressFamily {
    match family {
        AfiSafi::Ipv4Unicast => AddressFamily::Inet,
        AfiSafi::Ipv6Unicast => AddressFamily::Inet6,
    }
}

/// Table numbers beyond 255 do not fit the header.
fn set_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(small) => message.header.table = small,
        Err(_) => message.attributes.push(RouteAttribute::Table(table)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*, sample::select};

    use super::*;

    fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
        any::<u128>().prop_map(move |bits| {
            let octets = bits.to_be_bytes();
            if v6 { octets.into() } else { [octets[0], octets[1], octets[2], octets[3]].into() }
        })
    }

    fn route() -> impl Strategy<Value = KernelRoute> {
        (any::<bool>(), any::<bool>()).prop_flat_map(|(v6, gateway_v6)| {
            let hop = (option::of(address(v6 || gateway_v6)), 1..9u32, 0..4u8);
            let hop = hop.prop_map(|(gateway, interface, weight)| Hop {
                gateway,
                interface: Some(interface),
                weight,
                onlink: false,
            });
            let kind = select(vec![RouteKind::Unicast, RouteKind::Unreachable, RouteKind::Blackhole]);
            let prefix = (address(v6), 0..=if v6 { 128u8 } else { 32 });
            let table = select(vec![254u32, 255, 256, 1880, u32::MAX]);
            (prefix, table, any::<u8>(), any::<u32>(), kind, vec(hop, 1..4)).prop_map(
                |((address, length), table, protocol, metric, kind, mut hops)| {
                    hops.sort_unstable();
                    match hops.as_mut_slice() {
                        _ if kind != RouteKind::Unicast => hops.clear(),
                        // The kernel knows no weight of a single hop.
                        [single] => single.weight = 0,
                        _ => {}
                    }
                    let key = RouteKey { table, prefix: Prefix::new(address, length).unwrap() };
                    let (preferred_source, other_attributes) = (None, false);
                    KernelRoute {
                        key,
                        tos: 0,
                        metric,
                        protocol,
                        kind,
                        scope: 0,
                        hops,
                        preferred_source,
                        other_attributes,
                    }
                },
            )
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_says_what_was_meant(routes in vec(route(), 1..5)) {
            let mut datagram = Vec::new();
            for (sequence, route) in (1..).zip(&routes) {
                emit(&mut datagram, sequence, 0, RouteNetlinkMessage::NewRoute(route_message(route)));
            }
            let read: Vec<_> = frames(&datagram).map(|frame| super::route(frame.payload)).collect();
            prop_assert_eq!(read, routes.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            frames(&bytes).for_each(drop);
            let _ = (super::route(&bytes), super::address(&bytes), link(&bytes), route_header(&bytes));
        }
    }
}
