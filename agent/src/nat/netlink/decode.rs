//! What the kernel tells of our table. What cannot be read is told as `None`, never guessed.
use std::sync::Arc;

use super::{
    TABLE,
    encode::kind,
    kernel::*,
    wire::{attribute, attributes, long, number, text},
};
use crate::nat::ruleset::{Base, Content, Edge, Element, Hook, Key, Kind, Shape};

/// Whether a message's attributes are of our table. They say so in the same place for every kind of object.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    attribute(bytes, NFTA_TABLE).and_then(text) == Some(TABLE)
}

pub(super) fn chain(bytes: &[u8]) -> Option<(Arc<str>, Option<Base>)> {
    let name = text(attribute(bytes, NFTA_CHAIN_NAME)?)?;
    let base = match attribute(bytes, NFTA_CHAIN_HOOK) {
        None => None,
        Some(hook) => Some(Base {
            nat: attribute(bytes, NFTA_CHAIN_TYPE).and_then(text) == Some("nat"),
            hook: match number(attribute(hook, NFTA_HOOK_HOOKNUM)?)? {
                NF_INET_PRE_ROUTING => Hook::Prerouting,
                NF_INET_POST_ROUTING => Hook::Postrouting,
                other => Hook::Other(other),
            },
            priority: number(attribute(hook, NFTA_HOOK_PRIORITY)?)?.cast_signed(),
        }),
    };
    Some((name.into(), base))
}

/// A set's name and shape; no shape when it is none that we make.
pub(super) fn set(bytes: &[u8]) -> Option<(Arc<str>, Option<Shape>)> {
    let name = text(attribute(bytes, NFTA_SET_NAME)?)?;
    Some((name.into(), shape(bytes)))
}

fn shape(bytes: &[u8]) -> Option<Shape> {
    let flags = attribute(bytes, NFTA_SET_FLAGS).and_then(number).unwrap_or(0);
    let of = |wanted: u32| {
        let kinds = [Kind::V4, Kind::V6, Kind::Interface, Kind::Verdict];
        kinds.into_iter().find(|one| kind(*one).0 == wanted)
    };
    let content = match flags & (NFT_SET_MAP | NFT_SET_OBJECT) {
        0 => None,
        NFT_SET_MAP => Some(of(number(attribute(bytes, NFTA_SET_DATA_TYPE)?)?)?),
        _ => {
            let kind = number(attribute(bytes, NFTA_SET_OBJ_TYPE)?)?;
            Some((kind == NFT_OBJECT_COUNTER).then_some(Kind::Counter)?)
        }
    };
    let key = of(number(attribute(bytes, NFTA_SET_KEY_TYPE)?)?)?;
    let other = flags & !(NFT_SET_MAP | NFT_SET_OBJECT | NFT_SET_INTERVAL);
    (other == 0).then_some(Shape { key, content, interval: flags & NFT_SET_INTERVAL != 0 })
}

/// The elements of one message; `None` in place of one that cannot be read.
pub(super) fn elements(bytes: &[u8], shape: Shape) -> impl Iterator<Item = Option<Element>> {
    let list = attribute(bytes, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(list).map(move |(_, bytes)| element(bytes, shape))
}

fn element(bytes: &[u8], shape: Shape) -> Option<Element> {
    let value = attribute(attribute(bytes, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
    let key = match shape.key {
        Kind::V4 => Key::V4(number(value)?),
        Kind::V6 => Key::V6(u128::from_be_bytes(value.try_into().ok()?)),
        Kind::Interface => Key::Interface(value.try_into().ok()?),
        Kind::Verdict | Kind::Counter => return None,
    };
    let flags = attribute(bytes, NFTA_SET_ELEM_FLAGS).and_then(number).unwrap_or(0);
    let edge = if flags & NFT_SET_ELEM_INTERVAL_END != 0 { Edge::End } else { Edge::Start };
    let data = || attribute(bytes, NFTA_SET_ELEM_DATA);
    let content = match shape.content {
        None => Content::None,
        Some(_) if edge == Edge::End => Content::None,
        Some(Kind::Verdict) => {
            let verdict = attribute(data()?, NFTA_DATA_VERDICT)?;
            (number(attribute(verdict, NFTA_VERDICT_CODE)?)? == NFT_GOTO).then_some(())?;
            Content::Goto(text(attribute(verdict, NFTA_VERDICT_CHAIN)?)?.into())
        }
        Some(Kind::Counter) => Content::Counter(text(attribute(bytes, NFTA_SET_ELEM_OBJREF)?)?.into()),
        Some(Kind::V4) => Content::V4(number(attribute(data()?, NFTA_DATA_VALUE)?)?),
        Some(Kind::V6) => {
            Content::V6(u128::from_be_bytes(attribute(data()?, NFTA_DATA_VALUE)?.try_into().ok()?))
        }
        Some(Kind::Interface) => return None,
    };
    Some(Element { key, edge, content })
}

/// A counter's name, packets and bytes; `None` for other objects.
pub(super) fn counter(bytes: &[u8]) -> Option<(Arc<str>, u64, u64)> {
    let kind = number(attribute(bytes, NFTA_OBJ_TYPE)?)?;
    let data = attribute(bytes, NFTA_OBJ_DATA).filter(|_| kind == NFT_OBJECT_COUNTER)?;
    let count = |kind| attribute(data, kind).and_then(long).unwrap_or(0);
    let name = text(attribute(bytes, NFTA_OBJ_NAME)?)?;
    Some((name.into(), count(NFTA_COUNTER_PACKETS), count(NFTA_COUNTER_BYTES)))
}
