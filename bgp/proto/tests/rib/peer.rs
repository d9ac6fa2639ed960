//! A peer that reads UPDATEs strictly, by a reader of its own: an error shared by our writer and our decoder must
//! not cancel out. The decoder must come to the same result.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, Families, Prefix,
    rib::{AdjRibOut, Route},
    wire::{CodecContext, Frame, Message, NextHop, PathAttributes, Update},
};

/// What a peer knows of a route: enough to tell the tests' routes apart.
pub(crate) type Known = (Option<u32>, NextHop);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) withdrawn: Vec<Prefix>,
    pub(crate) announced: Vec<(Prefix, Known)>,
    pub(crate) end_of_rib: Option<AfiSafi>,
    pub(crate) length: usize,
    pub(crate) codes: Vec<u8>,
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A route that is told from others by `med`.
pub(crate) fn route(med: u32, next_hop: NextHop) -> Route {
    Route::new(PathAttributes { med: Some(med), ..PathAttributes::default() }, next_hop)
}

pub(crate) fn v4(last: u8) -> NextHop {
    NextHop::V4(Ipv4Addr::new(192, 0, 2, last))
}

pub(crate) fn v6(last: u16) -> NextHop {
    NextHop::V6 { global: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), link_local: None }
}

/// All that is to be said now, message by message.
pub(crate) fn drain(rib: &mut AdjRibOut, context: &CodecContext) -> Vec<Parsed> {
    let mut messages = Vec::new();
    let mut out = BytesMut::new();
    while rib.poll_update(context, &mut out) {
        messages.push(parse(&out.split(), context));
    }
    assert!(out.is_empty(), "bytes were written although there was nothing to say");
    messages
}

/// Reads exactly one UPDATE.
pub(crate) fn parse(message: &[u8], context: &CodecContext) -> Parsed {
    assert!(message.len() <= context.max_message_length, "{} octets", message.len());
    let mut rest = Reader(message);
    assert_eq!(rest.take(16), [0xff; 16]);
    assert_eq!(usize::from(rest.u16()), message.len(), "one message a poll");
    assert_eq!(rest.u8(), 2);
    let mut parsed = Parsed { length: message.len(), ..Parsed::default() };
    let withdrawn = usize::from(rest.u16());
    parsed.withdrawn = prefixes(rest.take(withdrawn), AfiSafi::Ipv4Unicast);
    let length = usize::from(rest.u16());
    let mut attributes = Reader(rest.take(length));
    let mut next_hop = None;
    let mut med = None;
    let mut reached = Vec::new();
    let mut unreach = None;
    while !attributes.0.is_empty() {
        let (flags, code) = (attributes.u8(), attributes.u8());
        let length =
            if flags & 0x10 == 0 { usize::from(attributes.u8()) } else { usize::from(attributes.u16()) };
        assert!(flags & 0x10 == 0 || length > 255, "RFC 4271 4.3: extended length of {length}");
        let mut value = Reader(attributes.take(length));
        match code {
            3 => next_hop = Some(NextHop::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value.0).unwrap()))),
            4 => med = Some(value.u32()),
            14 => {
                assert!(parsed.codes.is_empty(), "RFC 7606 5.1: MP_REACH_NLRI comes first");
                let family = value.family();
                let length = usize::from(value.u8());
                let mut hop = Reader(value.take(length));
                let global = Ipv6Addr::from(<[u8; 16]>::try_from(hop.take(16)).unwrap());
                let link_local =
                    (length == 32).then(|| Ipv6Addr::from(<[u8; 16]>::try_from(hop.take(16)).unwrap()));
                assert!(hop.0.is_empty());
                assert_eq!(value.u8(), 0, "reserved");
                next_hop = Some(NextHop::V6 { global, link_local });
                reached = prefixes(value.0, family);
            }
            15 => {
                assert!(parsed.codes.is_empty(), "RFC 7606 5.1: MP_UNREACH_NLRI comes first");
                let family = value.family();
                let gone = prefixes(value.0, family);
                unreach = Some(family);
                parsed.withdrawn.extend(gone);
            }
            _ => {}
        }
        assert!(!parsed.codes.contains(&code), "attribute {code} twice");
        parsed.codes.push(code);
    }
    reached.extend(prefixes(rest.0, AfiSafi::Ipv4Unicast));
    parsed.announced = reached.iter().map(|prefix| (*prefix, (med, next_hop.expect("a next hop")))).collect();
    if parsed.announced.is_empty() && parsed.withdrawn.is_empty() {
        assert_eq!(parsed.codes, if unreach.is_some() { vec![15] } else { vec![] });
        parsed.end_of_rib = Some(unreach.unwrap_or(AfiSafi::Ipv4Unicast));
    }
    assert!(parsed.announced.is_empty() || parsed.withdrawn.is_empty(), "RFC 7606 5.1: one kind a message");
    assert_eq!(as_decoded(decode(message, context)), (parsed.withdrawn.clone(), parsed.announced.clone()));
    parsed
}

fn decode(message: &[u8], context: &CodecContext) -> Update {
    let frame = Frame::poll(&mut BytesMut::from(message), context.max_message_length).unwrap().unwrap();
    let Message::Update(update, findings) = Message::decode(frame, context).unwrap() else {
        panic!("not an UPDATE");
    };
    assert_eq!(findings, []);
    update
}

/// What a decoded UPDATE withdraws and announces, in the order of the message.
fn as_decoded(update: Update) -> (Vec<Prefix>, Vec<(Prefix, Known)>) {
    let med = update.attributes.med;
    let withdrawn = update.unreach.iter().flat_map(|unreach| &unreach.nlri).map(|nlri| nlri.prefix);
    let announced = update
        .reach
        .iter()
        .flat_map(|reach| reach.nlri.iter().map(move |nlri| (nlri.prefix, (med, reach.next_hop))));
    (withdrawn.collect(), announced.collect())
}

/// What a peer holds in one session.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) families: Families,
    pub(crate) routes: BTreeMap<Prefix, Known>,
    /// What it heard announced since the session began or it asked for a refresh.
    pub(crate) heard: BTreeSet<Prefix>,
    pub(crate) refreshing: Families,
    pub(crate) end_of_rib: Vec<AfiSafi>,
}

impl Peer {
    pub(crate) fn new(families: Families) -> Peer {
        Peer {
            families,
            routes: BTreeMap::new(),
            heard: BTreeSet::new(),
            refreshing: Families::NONE,
            end_of_rib: Vec::new(),
        }
    }

    /// Asks to hear `family` again.
    pub(crate) fn ask(&mut self, family: AfiSafi) {
        self.refreshing.insert(family);
        self.heard.retain(|prefix| prefix.family() != family);
    }

    /// The other side says things otherwise now, and may say some of them again although nothing came of it.
    pub(crate) fn expect_repetitions(&mut self) {
        self.refreshing = self.families;
    }

    /// Takes a message in, and objects to what need not have been said.
    pub(crate) fn hear(&mut self, message: Parsed) {
        for prefix in message.withdrawn {
            assert!(self.families.contains(prefix.family()));
            assert!(self.routes.remove(&prefix).is_some(), "{prefix} was withdrawn but never held");
        }
        for (prefix, known) in message.announced {
            assert!(self.families.contains(prefix.family()));
            let old = self.routes.insert(prefix, known);
            let again = old == Some(known);
            let asked = self.refreshing.contains(prefix.family());
            assert!(!again || asked, "{prefix} was told twice");
            self.heard.insert(prefix);
        }
        if let Some(family) = message.end_of_rib {
            assert!(self.families.contains(family));
            assert!(!self.end_of_rib.contains(&family), "End-of-RIB of {family} twice");
            self.end_of_rib.push(family);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn family(&mut self) -> AfiSafi {
        AfiSafi::from_code(self.u16(), self.u8()).unwrap()
    }
}

fn prefixes(octets: &[u8], family: AfiSafi) -> Vec<Prefix> {
    let mut rest = Reader(octets);
    let mut prefixes = Vec::new();
    while !rest.0.is_empty() {
        let length = rest.u8();
        let significant = rest.take(usize::from(length).div_ceil(8));
        let mut octets = [0; 16];
        octets[..significant.len()].copy_from_slice(significant);
        let prefix = match family {
            AfiSafi::Ipv4Unicast => {
                assert!(significant.len() <= 4);
                Prefix::v4(<[u8; 4]>::try_from(&octets[..4]).unwrap().into(), length)
            }
            AfiSafi::Ipv6Unicast => Prefix::v6(octets.into(), length),
        };
        let prefix = prefix.unwrap();
        assert_eq!(prefix.address().is_ipv4(), family == AfiSafi::Ipv4Unicast);
        prefixes.push(prefix);
    }
    prefixes
}
