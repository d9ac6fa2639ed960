//! The body of an UPDATE after an octet that chooses the context: what is read can be written and read again as
//! the same, without findings.
#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use plainroute_bgp::{
    Families,
    wire::{CodecContext, Frame, Message, iana::MessageType},
};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, body)) = input.split_first() else { return };
    let add_path = if choice & 8 != 0 { Families::ALL } else { Families::NONE };
    let context = CodecContext {
        four_octet_asn: choice & 1 == 0,
        internal: choice & 2 != 0,
        ipv4_over_ipv6: choice & 4 != 0,
        max_message_length: 65535,
        add_path_receive: add_path,
        add_path_send: add_path,
        ..CodecContext::default()
    };
    let frame = Frame { kind: MessageType::Update, body: Bytes::copy_from_slice(body) };
    let Ok(Message::Update(mut update, _)) = Message::decode(frame, &context) else { return };
    // Treat-as-withdraw appends what was announced; written, IPv4 comes first again.
    update.unreach.sort_by_key(|unreach| unreach.family);
    let mut out = BytesMut::new();
    if update.encode(&context, &mut out).is_err() {
        assert!(out.is_empty(), "a failed encoding leaves nothing behind");
        return;
    }
    out.put_slice(b"next");
    let frame = Frame::poll(&mut out, 65535).expect("a valid header").expect("a whole message");
    assert_eq!(&out[..], b"next");
    match Message::decode(frame, &context) {
        Ok(Message::Update(again, findings)) => {
            assert!(findings.is_empty(), "{findings:?}");
            // A path of an OLD speaker in which a confederation stands between others is not restored whole.
            if context.four_octet_asn {
                assert_eq!(again, update);
            }
        }
        other => panic!("{other:?}"),
    }
});
