//! Byte vectors of every message, read and written: tests/data/vectors/*.hex, what they mean as snapshots beside.
//! `INSTA_UPDATE=always` rewrites the snapshots.
use std::{fs, path::Path};

use bytes::BytesMut;
use plainroute_bgp::wire::{CodecContext, Frame, Message, Notification};

struct Vector {
    name: String,
    octets: Vec<u8>,
    context: CodecContext,
    /// The message is valid, but not as we write it.
    one_way: bool,
}

/// Hex octets with blanks, and comments from `#` on; two of those have a meaning: `# context: WORDS`, `# one-way`.
fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| vector(path)).collect()
}

fn vector(path: &Path) -> Vector {
    let text = fs::read_to_string(path).unwrap();
    let digits: Vec<u8> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    let mut context = CodecContext::default();
    let words = text.lines().find_map(|line| line.strip_prefix("# context: ")).unwrap();
    for word in words.split_whitespace() {
        match word {
            "external" => context.internal = false,
            "internal" => context.internal = true,
            "two-octet" => context.four_octet_asn = false,
            "ipv4-over-ipv6" => context.ipv4_over_ipv6 = true,
            other => panic!("{}: unknown context {other}", path.display()),
        }
    }
    Vector {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        octets: digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect(),
        context,
        one_way: text.contains("\n# one-way"),
    }
}

/// What decoding the octets as the only message gives; `None` where framing waits for more.
fn decode(octets: &[u8], context: &CodecContext) -> Option<Result<Message, Notification>> {
    let mut buffer = BytesMut::from(octets);
    match Frame::poll(&mut buffer, context.max_message_length) {
        Ok(frame) => frame.map(|frame| Message::decode(frame, context)),
        Err(notification) => Some(Err(notification)),
    }
}

fn encode(message: &Message, context: &CodecContext) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(context, &mut out).unwrap();
    out
}

#[test]
fn every_vector_is_read_and_written() {
    for vector in vectors() {
        let message = decode(&vector.octets, &vector.context).unwrap().unwrap_or_else(|error| {
            panic!("{}: {error}", vector.name);
        });
        insta::assert_debug_snapshot!(vector.name.clone(), message);
        let written = encode(&message, &vector.context);
        assert_eq!(written == vector.octets, !vector.one_way, "{}: {written:02x?}", vector.name);
        assert_eq!(decode(&written, &vector.context).unwrap().unwrap(), message, "{}", vector.name);
    }
}

/// Whatever one octet becomes, the decoder answers; and what it accepts it can write and read again as the same.
#[test]
fn no_single_octet_brings_the_decoder_down() {
    // The two longer ones repeat one thing many times.
    for vector in vectors().into_iter().filter(|vector| vector.octets.len() < 250) {
        let mut octets = vector.octets.clone();
        for at in 0..octets.len() {
            let before = octets[at];
            for octet in 0..=u8::MAX {
                octets[at] = octet;
                if let Some(Ok(message)) = decode(&octets, &vector.context) {
                    assert_stable(&message, &vector);
                }
            }
            octets[at] = before;
        }
    }
}

/// Every shorter body under a header that agrees with it.
#[test]
fn no_truncation_brings_the_decoder_down() {
    for vector in vectors() {
        for length in 19..vector.octets.len() {
            let mut octets = vector.octets[..length].to_vec();
            octets[16..18].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            if let Some(Ok(message)) = decode(&octets, &vector.context) {
                assert_stable(&message, &vector);
            }
        }
    }
}

fn assert_stable(message: &Message, vector: &Vector) {
    let mut out = BytesMut::new();
    // A wrong octet can make two withdrawals of one that have no single message; the rest must be writable.
    if message.encode(&vector.context, &mut out).is_err() {
        assert!(matches!(message, Message::Update(..)), "{}", vector.name);
        return;
    }
    let again = decode(&out, &vector.context).unwrap().unwrap();
    match (message, &again) {
        // The findings are about octets that are no longer there, and prefixes of one family join one field.
        (Message::Update(first, _), Message::Update(second, findings)) => {
            let case = format!("{}: {first:?} became {second:?}", vector.name);
            assert!(findings.is_empty(), "{case}: {findings:?}");
            assert_eq!(first.reach, second.reach, "{case}");
            assert_eq!(first.attributes, second.attributes, "{case}");
            assert_eq!(first.unreach, second.unreach, "{case}");
        }
        _ => assert_eq!(*message, again, "{}", vector.name),
    }
}
