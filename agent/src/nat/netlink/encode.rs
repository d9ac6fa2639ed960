//! A transaction as one datagram.
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};

use super::{
    TABLE, expression,
    kernel::*,
    wire::{Head, Writer},
};
use crate::nat::{
    diff::Change,
    ruleset::{Base, Content, Edge, Element, Hook, Key, Kind, Rule, Shape},
};

/// An attribute has at most 64 KiB, and an element up to 60 bytes.
const ELEMENTS: usize = 512;
/// What `nft` shows on the table, chain or rule (libnftnl's udata.h).
const COMMENT: u8 = 0;
const COMMENT_LENGTH: usize = 128;
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// The changes as one batch, its messages numbered from `first` on, the begin being the first; and for each number the
/// place of its change.
pub(super) fn batch(changes: &[Change], first: u32) -> (Vec<u8>, Vec<usize>) {
    let mut writer = Writer::default();
    let frame = |kind, sequence| Head {
        kind,
        flags: NLM_F_REQUEST,
        sequence,
        family: 0,
        resource: NFNL_SUBSYS_NFTABLES,
    };
    writer.message(frame(NFNL_MSG_BATCH_BEGIN, first), |_| {});
    let mut places = Vec::new();
    let messages: Vec<(usize, Message<'_>)> = changes
        .iter()
        .enumerate()
        .flat_map(|(place, change)| split(change).map(move |m| (place, m)))
        .collect();
    let last = messages.len();
    for (count, (place, message)) in messages.into_iter().enumerate() {
        places.push(place);
        let sequence = first.wrapping_add(places.len() as u32);
        // The kernel answers in order, and a refusal unasked: one acknowledgement speaks for all before it.
        let acknowledge = if count + 1 == last { NLM_F_ACK } else { 0 };
        write(&mut writer, &message, sequence, acknowledge);
    }
    writer.message(frame(NFNL_MSG_BATCH_END, first.wrapping_add(places.len() as u32 + 1)), |_| {});
    (writer.bytes().to_vec(), places)
}

/// A change, and as many of its elements as one message takes.
type Message<'a> = (&'a Change, &'a [Element]);

fn split(change: &Change) -> impl Iterator<Item = Message<'_>> {
    let elements = match change {
        Change::AddElements(_, _, elements) | Change::RemoveElements(_, _, elements) => elements.as_slice(),
        _ => &[],
    };
    let whole = elements.is_empty().then_some((change, elements));
    whole.into_iter().chain(elements.chunks(ELEMENTS).map(move |some| (change, some)))
}

fn write(writer: &mut Writer, (change, elements): &Message<'_>, sequence: u32, acknowledge: u16) {
    let (kind, create) = match change {
        Change::AddTable => (NEWTABLE, NLM_F_CREATE),
        Change::RemoveTable => (DELTABLE, 0),
        Change::AddCounter(_) => (NEWOBJ, NLM_F_CREATE),
        Change::RemoveCounter(_) => (DELOBJ, 0),
        Change::AddSet(..) => (NEWSET, NLM_F_CREATE),
        Change::RemoveSet(_) => (DELSET, 0),
        Change::AddElements(..) => (NEWSETELEM, NLM_F_CREATE),
        Change::RemoveElements(..) => (DELSETELEM, 0),
        Change::AddChain(..) => (NEWCHAIN, NLM_F_CREATE),
        Change::FlushChain(_) => (DELRULE, 0),
        Change::RemoveChain(_) => (DELCHAIN, 0),
        // NLM_F_APPEND: behind the ones before it.
        Change::AddRule(..) => (NEWRULE, NLM_F_CREATE | 0x800),
    };
    let flags = NLM_F_REQUEST | create | acknowledge;
    writer.message(Head { kind, flags, sequence, family: NFPROTO_INET, resource: 0 }, |w| {
        w.text(NFTA_TABLE, TABLE);
        match change {
            Change::AddTable => comment(w, NFTA_TABLE_USERDATA, "made and kept by plainroute: egress IPs"),
            Change::RemoveTable => {}
            Change::AddCounter(name) => {
                w.text(NFTA_OBJ_NAME, name);
                w.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
                w.nest(NFTA_OBJ_DATA, |_| {});
            }
            Change::RemoveCounter(name) => {
                w.text(NFTA_OBJ_NAME, name);
                w.number(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
            }
            Change::AddSet(name, shape) => set(w, name, *shape, sequence),
            Change::RemoveSet(name) => w.text(NFTA_SET_NAME, name),
            Change::AddElements(name, shape, _) | Change::RemoveElements(name, shape, _) => {
                w.text(NFTA_SET_ELEM_LIST_SET, name);
                let contents = matches!(change, Change::AddElements(..)) && shape.content.is_some();
                w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
                    elements.iter().for_each(|one| element(w, one, contents));
                });
            }
            Change::AddChain(name, base) => chain(w, name, *base),
            Change::FlushChain(name) => w.text(NFTA_RULE_CHAIN, name),
            Change::RemoveChain(name) => w.text(NFTA_CHAIN_NAME, name),
            Change::AddRule(chain, of) => rule(w, chain, of),
        }
    });
}

fn set(writer: &mut Writer, name: &str, shape: Shape, id: u32) {
    writer.text(NFTA_SET_NAME, name);
    let map = match shape.content {
        None => 0,
        Some(Kind::Counter) => NFT_SET_OBJECT,
        Some(_) => NFT_SET_MAP,
    };
    let interval = if shape.interval { NFT_SET_INTERVAL } else { 0 };
    writer.number(NFTA_SET_FLAGS, map | interval);
    let (kind, length) = kind(shape.key);
    writer.number(NFTA_SET_KEY_TYPE, kind);
    writer.number(NFTA_SET_KEY_LEN, length);
    match shape.content {
        None => {}
        Some(Kind::Counter) => writer.number(NFTA_SET_OBJ_TYPE, NFT_OBJECT_COUNTER),
        Some(content) => {
            let (kind, length) = self::kind(content);
            writer.number(NFTA_SET_DATA_TYPE, kind);
            writer.number(NFTA_SET_DATA_LEN, length);
        }
    }
    // `nft` shows names backwards when it is not told (libnftnl's udata.h: the order of bytes of a key).
    let order: u32 = if shape.key == Kind::Interface { HOST_ORDER } else { NETWORK_ORDER };
    let mut record = vec![KEY_BYTE_ORDER, 4];
    record.extend(order.to_ne_bytes());
    writer.bytes_of(NFTA_SET_USERDATA, &record);
    // Only unique within the transaction.
    writer.number(NFTA_SET_ID, id);
}

/// The type's number for `nft`, and its length.
pub(super) fn kind(kind: Kind) -> (u32, u32) {
    match kind {
        Kind::V4 => (TYPE_IPADDR, 4),
        Kind::V6 => (TYPE_IP6ADDR, 16),
        Kind::Interface => (TYPE_IFNAME, 16),
        Kind::Verdict => (NFT_DATA_VERDICT, 0),
        // No data: the element refers to an object.
        Kind::Counter => (0, 0),
    }
}

fn element(writer: &mut Writer, element: &Element, content: bool) {
    writer.nest(NFTA_LIST_ELEM, |w| {
        if element.edge == Edge::End {
            w.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
        }
        w.nest(NFTA_SET_ELEM_KEY, |w| match element.key {
            Key::V4(bits) => w.bytes_of(NFTA_DATA_VALUE, &bits.to_be_bytes()),
            Key::V6(bits) => w.bytes_of(NFTA_DATA_VALUE, &bits.to_be_bytes()),
            Key::Interface(name) => w.bytes_of(NFTA_DATA_VALUE, &name),
        });
        match &element.content {
            Content::V4(bits) if content => {
                w.nest(NFTA_SET_ELEM_DATA, |w| w.bytes_of(NFTA_DATA_VALUE, &bits.to_be_bytes()));
            }
            Content::V6(bits) if content => {
                w.nest(NFTA_SET_ELEM_DATA, |w| w.bytes_of(NFTA_DATA_VALUE, &bits.to_be_bytes()));
            }
            Content::Counter(name) if content => w.text(NFTA_SET_ELEM_OBJREF, name),
            Content::Goto(chain) if content => w.nest(NFTA_SET_ELEM_DATA, |w| {
                w.nest(NFTA_DATA_VERDICT, |w| {
                    w.number(NFTA_VERDICT_CODE, NFT_GOTO);
                    w.text(NFTA_VERDICT_CHAIN, chain);
                });
            }),
            Content::None | Content::V4(_) | Content::V6(_) | Content::Counter(_) | Content::Goto(_) => {}
        }
    });
}

fn chain(writer: &mut Writer, name: &str, base: Option<Base>) {
    writer.text(NFTA_CHAIN_NAME, name);
    let Some(base) = base else { return };
    writer.nest(NFTA_CHAIN_HOOK, |w| {
        let hook = match base.hook {
            Hook::Prerouting => NF_INET_PRE_ROUTING,
            Hook::Postrouting => NF_INET_POST_ROUTING,
            Hook::Other(number) => number,
        };
        w.number(NFTA_HOOK_HOOKNUM, hook);
        w.number(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
    });
    writer.number(NFTA_CHAIN_POLICY, NF_ACCEPT);
    writer.text(NFTA_CHAIN_TYPE, if base.nat { "nat" } else { "filter" });
}

fn rule(writer: &mut Writer, chain: &str, rule: &Rule) {
    writer.text(NFTA_RULE_CHAIN, chain);
    writer.nest(NFTA_RULE_EXPRESSIONS, |w| {
        rule.expressions.iter().for_each(|step| expression::write(w, step));
    });
    if let Some(text) = &rule.comment {
        comment(writer, NFTA_RULE_USERDATA, text);
    }
}

fn comment(writer: &mut Writer, kind: u16, text: &str) {
    let cut =
        (0..=text.len().min(COMMENT_LENGTH - 2)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let text = text.get(..cut).unwrap_or_default();
    let mut record = vec![COMMENT, text.len() as u8 + 1];
    record.extend(text.as_bytes());
    record.push(0);
    writer.bytes_of(kind, &record);
}
