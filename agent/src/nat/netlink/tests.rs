//! What is sent says what was meant, and no bytes make a decoder panic.
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::nat::ruleset::{Base, Content, Edge, Hook, Key, Kind};

fn shape() -> impl Strategy<Value = Shape> {
    let key = select(vec![Kind::V4, Kind::V6, Kind::Interface]);
    let content =
        select(vec![None, Some(Kind::V4), Some(Kind::V6), Some(Kind::Verdict), Some(Kind::Counter)]);
    (key, content, any::<bool>()).prop_map(|(key, content, interval)| Shape { key, content, interval })
}

fn element(shape: Shape) -> impl Strategy<Value = Element> {
    (any::<u128>(), any::<bool>(), "[a-z/]{1,40}").prop_map(move |(bits, end, name)| {
        let key = match shape.key {
            Kind::V4 => Key::V4(bits as u32),
            Kind::V6 => Key::V6(bits),
            Kind::Interface | Kind::Verdict | Kind::Counter => Key::Interface(bits.to_be_bytes()),
        };
        let end = end && shape.interval;
        let content = match shape.content {
            None | Some(Kind::Interface) => Content::None,
            Some(_) if end => Content::None,
            Some(Kind::V4) => Content::V4(bits as u32),
            Some(Kind::V6) => Content::V6(bits),
            Some(Kind::Verdict) => Content::Goto(name.into()),
            Some(Kind::Counter) => Content::Counter(name.into()),
        };
        Element { key, edge: if end { Edge::End } else { Edge::Start }, content }
    })
}

/// Shapes with elements; more than one message takes.
fn elements() -> impl Strategy<Value = (Shape, Vec<Element>)> {
    shape().prop_flat_map(|shape| (Just(shape), vec(element(shape), 1..700)))
}

fn attributes_of(datagram: &[u8], kind: u16) -> Vec<&[u8]> {
    let of_kind = frames(datagram).filter(|frame| frame.kind == kind);
    of_kind.filter_map(|frame| frame.payload.get(4..)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sent_says_what_was_meant((shape, elements) in elements(), priority in any::<i32>(), nat in any::<bool>()) {
        let base = Some(Base { nat, hook: Hook::Postrouting, priority });
        let changes = [
            Change::AddSet("some".into(), shape),
            Change::AddChain("chain".into(), base),
            Change::AddElements("some".into(), shape, elements.clone()),
        ];
        let (datagram, places) = encode::batch(&changes, 7);
        let sequences: Vec<u32> = frames(&datagram).map(|frame| frame.sequence).collect();
        prop_assert_eq!(&sequences, &(7..7 + places.len() as u32 + 2).collect::<Vec<_>>());
        let sets: Vec<_> = attributes_of(&datagram, NEWSET).into_iter().map(decode::set).collect();
        prop_assert_eq!(sets, [Some(("some".into(), Some(shape)))]);
        let chains: Vec<_> = attributes_of(&datagram, NEWCHAIN).into_iter().map(decode::chain).collect();
        prop_assert_eq!(chains, [Some(("chain".into(), base))]);
        let read: Vec<_> = attributes_of(&datagram, NEWSETELEM)
            .into_iter()
            .flat_map(|bytes| decode::elements(bytes, shape).collect::<Vec<_>>())
            .collect();
        prop_assert_eq!(read, elements.into_iter().map(Some).collect::<Vec<_>>());
        prop_assert!(attributes_of(&datagram, NEWSETELEM).into_iter().all(decode::is_ours));
    }

    /// Any bytes, and bytes of ours with some of them changed.
    #[test]
    fn no_bytes_make_it_panic(
        (shape, elements) in elements(), noise in vec(any::<u8>(), 0..300), hits in vec((any::<u16>(), any::<u8>()), 0..40),
    ) {
        let changes = [
            Change::AddSet("some".into(), shape),
            Change::AddChain("chain".into(), Some(Base { nat: true, hook: Hook::Prerouting, priority: 1 })),
            Change::AddCounter("counter".into()),
            Change::AddElements("some".into(), shape, elements),
        ];
        let (mut broken, _) = encode::batch(&changes, 1);
        for (place, value) in hits {
            let length = broken.len().min(600);
            broken[usize::from(place) % length] = value;
        }
        for bytes in [&noise, &broken] {
            let payloads: Vec<&[u8]> = frames(bytes).map(|frame| frame.payload).collect();
            for bytes in payloads.into_iter().flat_map(|bytes| [bytes, bytes.get(4..).unwrap_or(&[])]).chain([&bytes[..]]) {
                let _ = (decode::is_ours(bytes), decode::chain(bytes), decode::set(bytes), decode::counter(bytes));
                let _ = (decode::elements(bytes, shape).count(), conntrack::flow(bytes), code(bytes));
            }
            for frame in frames(bytes) {
                let _ = (text(&frame), frame.netfilter());
            }
        }
    }
}
