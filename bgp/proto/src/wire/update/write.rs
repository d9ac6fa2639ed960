//! Packs prefixes into UPDATE messages. The attributes of a group are encoded once
//! ([`EncodedAttributes`]); then each call here writes one message, as full as it may be.
use bytes::{BufMut, BytesMut};

use super::{Reach, Unreach, Update};
use crate::{
    AfiSafi, Families,
    wire::{
        CodecContext, EncodedAttributes, NextHop, Nlri,
        attribute::encode,
        frame,
        iana::{MessageType, attribute as code, flag},
    },
};

/// Why an [`Update`] has no single message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencodable {
    /// It exceeds the longest message that the session allows.
    #[error("the UPDATE is longer than the session's longest message")]
    TooLong,
    /// It needs two MP_REACH_NLRI or two MP_UNREACH_NLRI.
    #[error("the UPDATE needs more than one message")]
    NotOneMessage,
    /// It names no prefix: as a message it would be an End-of-RIB marker.
    #[error("the UPDATE names no prefix")]
    Empty,
    /// An IPv6 prefix has an IPv4 next hop.
    #[error("an IPv6 prefix cannot have an IPv4 next hop")]
    NextHop,
}

/// Writes one UPDATE that withdraws as many of `nlri` as fit; returns how many. Call again with the rest. The
/// prefixes must be of `family`: the first that is not ends the message. Without any, nothing is written.
pub fn write_withdraw<I>(family: AfiSafi, nlri: I, context: &CodecContext, out: &mut BytesMut) -> usize
where
    I: IntoIterator<Item: Into<Nlri>>,
{
    let mut message = Begun::new(context, out);
    let count = match family {
        AfiSafi::Ipv4Unicast => {
            let count = message.withdrawn(|message| message.put_nlri(family, nlri, 2));
            message.attributes(|_| ());
            count
        }
        AfiSafi::Ipv6Unicast => {
            message.withdrawn(|_| ());
            message.attributes(|message| {
                message.multi_protocol(code::MP_UNREACH_NLRI, |message| {
                    message.put_family(family);
                    message.put_nlri(family, nlri, 0)
                })
            })
        }
    };
    message.finish_unless_empty(count)
}

/// Writes one UPDATE that announces as many of `nlri` as fit; returns how many. Call again with the rest. As
/// [`write_withdraw`] otherwise. Zero also means that the attributes leave no room in a message, or that an IPv6
/// prefix was to have an IPv4 next hop: such routes cannot be announced at all.
///
/// IPv4 with an IPv4 next hop uses the classic fields; all else stands in MP_REACH_NLRI, as the first attribute
/// (RFC 7606 section 5.1).
pub fn write_reach<I>(
    family: AfiSafi,
    attributes: &EncodedAttributes,
    next_hop: &NextHop,
    nlri: I,
    context: &CodecContext,
    out: &mut BytesMut,
) -> usize
where
    I: IntoIterator<Item: Into<Nlri>>,
{
    let mut message = Begun::new(context, out);
    message.withdrawn(|_| ());
    let count = match (family, next_hop) {
        (AfiSafi::Ipv4Unicast, NextHop::V4(address)) => {
            message.attributes(|message| attributes.put(Some(*address), message.out));
            message.put_nlri(family, nlri, 0)
        }
        (AfiSafi::Ipv6Unicast, NextHop::V4(_)) => 0,
        (AfiSafi::Ipv4Unicast | AfiSafi::Ipv6Unicast, NextHop::V6 { .. }) => message.attributes(|message| {
            let count = message.multi_protocol(code::MP_REACH_NLRI, |message| {
                message.put_reach_fields(family, next_hop);
                message.put_nlri(family, nlri, attributes.length())
            });
            attributes.put(None, message.out);
            count
        }),
    };
    message.finish_unless_empty(count)
}

/// Writes the End-of-RIB marker of a family (RFC 4724 section 2).
pub fn write_end_of_rib(family: AfiSafi, out: &mut BytesMut) {
    let mut message = Begun::new(&CodecContext::default(), out);
    message.withdrawn(|_| ());
    message.attributes(|message| match family {
        AfiSafi::Ipv4Unicast => {}
        AfiSafi::Ipv6Unicast => {
            message.multi_protocol(code::MP_UNREACH_NLRI, |message| message.put_family(family));
        }
    });
    message.finish();
}

impl Update {
    /// Writes the update as one message; `out` is as before where that cannot be.
    pub fn encode(&self, context: &CodecContext, out: &mut BytesMut) -> Result<(), Unencodable> {
        if let Some(family) = self.end_of_rib {
            write_end_of_rib(family, out);
            return Ok(());
        }
        let parts = Parts::new(self)?;
        let start = out.len();
        parts.write(self, context, out);
        let length = out.len().saturating_sub(start);
        if length > context.max_message_length {
            out.truncate(start);
            return Err(Unencodable::TooLong);
        }
        Ok(())
    }
}

/// An update by the fields of the message.
#[derive(Default)]
struct Parts<'a> {
    withdrawn: &'a [Nlri],
    mp_unreach: Option<&'a Unreach>,
    mp_reach: Option<&'a Reach>,
    classic: Option<(std::net::Ipv4Addr, &'a [Nlri])>,
}

impl<'a> Parts<'a> {
    fn new(update: &'a Update) -> Result<Parts<'a>, Unencodable> {
        let mut parts = Parts::default();
        for unreach in update.unreach.iter().filter(|unreach| !unreach.nlri.is_empty()) {
            match unreach.family {
                AfiSafi::Ipv4Unicast if parts.withdrawn.is_empty() => parts.withdrawn = &unreach.nlri,
                _ => only_one(&mut parts.mp_unreach, unreach)?,
            }
        }
        for reach in update.reach.iter().filter(|reach| !reach.nlri.is_empty()) {
            match (reach.family, reach.next_hop) {
                (AfiSafi::Ipv4Unicast, NextHop::V4(address)) if parts.classic.is_none() => {
                    parts.classic = Some((address, &reach.nlri));
                }
                (AfiSafi::Ipv6Unicast, NextHop::V4(_)) => return Err(Unencodable::NextHop),
                _ => only_one(&mut parts.mp_reach, reach)?,
            }
        }
        match parts {
            Parts { withdrawn: [], mp_unreach: None, mp_reach: None, classic: None } => {
                Err(Unencodable::Empty)
            }
            parts => Ok(parts),
        }
    }

    fn write(&self, update: &Update, context: &CodecContext, out: &mut BytesMut) {
        let all = CodecContext { max_message_length: usize::MAX, ..*context };
        let mut message = Begun::new(&all, out);
        message.withdrawn(|message| message.put_nlri(AfiSafi::Ipv4Unicast, self.withdrawn, 0));
        message.attributes(|message| {
            if let Some(reach) = self.mp_reach {
                message.multi_protocol(code::MP_REACH_NLRI, |message| {
                    message.put_reach_fields(reach.family, &reach.next_hop);
                    message.put_nlri(reach.family, &reach.nlri, 0)
                });
            }
            if let Some(unreach) = self.mp_unreach {
                message.multi_protocol(code::MP_UNREACH_NLRI, |message| {
                    message.put_family(unreach.family);
                    message.put_nlri(unreach.family, &unreach.nlri, 0)
                });
            }
            if self.classic.is_some() || self.mp_reach.is_some() {
                let attributes = EncodedAttributes::new(&update.attributes, context);
                attributes.put(self.classic.map(|(address, _)| address), message.out);
            }
        });
        if let Some((_, nlri)) = self.classic {
            message.put_nlri(AfiSafi::Ipv4Unicast, nlri, 0);
        }
        message.finish();
    }
}

fn only_one<'a, T>(slot: &mut Option<&'a T>, value: &'a T) -> Result<(), Unencodable> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Unencodable::NotOneMessage),
    }
}

/// A message under construction at the end of a buffer.
struct Begun<'a> {
    out: &'a mut BytesMut,
    start: usize,
    /// Where in the buffer the message has to end at the latest.
    limit: usize,
    /// The families whose prefixes have a path identifier.
    add_path: Families,
}

impl<'a> Begun<'a> {
    fn new(context: &CodecContext, out: &'a mut BytesMut) -> Begun<'a> {
        let start = frame::begin(MessageType::Update, out);
        let limit = start.saturating_add(context.max_message_length);
        Begun { limit, start, out, add_path: context.add_path_send }
    }

    /// The withdrawn routes field.
    fn withdrawn<T>(&mut self, content: impl FnOnce(&mut Self) -> T) -> T {
        self.with_length(content)
    }

    /// The path attributes field.
    fn attributes<T>(&mut self, content: impl FnOnce(&mut Self) -> T) -> T {
        self.with_length(content)
    }

    /// Content after its length in two octets.
    fn with_length<T>(&mut self, content: impl FnOnce(&mut Self) -> T) -> T {
        let at = self.out.len();
        self.out.put_u16(0);
        let result = content(self);
        let length = self.out.len().saturating_sub(at).saturating_sub(2);
        frame::put_length(at, length, self.out);
        result
    }

    fn multi_protocol<T>(&mut self, code: u8, content: impl FnOnce(&mut Self) -> T) -> T {
        let start = encode::begin(flag::OPTIONAL, code, self.out);
        let result = content(self);
        encode::finish(start, self.out);
        result
    }

    fn put_family(&mut self, family: AfiSafi) {
        self.out.put_u16(family.afi());
        self.out.put_u8(family.safi());
    }

    fn put_reach_fields(&mut self, family: AfiSafi, next_hop: &NextHop) {
        self.put_family(family);
        self.out.put_u8(next_hop.encoded_length());
        next_hop.encode(self.out);
        self.out.put_u8(0);
    }

    /// As many prefixes as fit before the limit, with `reserved` octets left for what follows.
    fn put_nlri<I>(&mut self, family: AfiSafi, nlri: I, reserved: usize) -> usize
    where
        I: IntoIterator<Item: Into<Nlri>>,
    {
        let limit = self.limit.saturating_sub(reserved);
        let add_path = self.add_path.contains(family);
        let mut count: usize = 0;
        for nlri in nlri {
            let nlri = Into::<Nlri>::into(nlri).for_session(add_path);
            let end = self.out.len().saturating_add(nlri.encoded_length());
            if end > limit || nlri.prefix.family() != family {
                break;
            }
            nlri.encode(self.out);
            count = count.saturating_add(1);
        }
        count
    }

    fn finish(self) {
        frame::finish(self.start, self.out);
    }

    fn finish_unless_empty(self, count: usize) -> usize {
        match count {
            0 => self.out.truncate(self.start),
            _ => self.finish(),
        }
        count
    }
}
