//! tests/data/bmp/*.hex, put together after the RFC by hand; what they mean as snapshots beside.
//! `INSTA_UPDATE=always` rewrites the snapshots.
use std::{fs, path::Path};

use bytes::{BufMut, BytesMut};
use plainroute_bgp::bmp::{self, MAX_LENGTH, Malformed};

use super::{decode, encode};

/// Hex octets with blanks, and comments from `#` on.
pub(crate) fn vectors() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bmp");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10);
    paths.iter().map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), octets(path))).collect()
}

fn octets(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().filter_map(|line| line.split('#').next());
    let digits: Vec<u8> = code
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn every_vector_is_read_and_written() {
    for (name, octets) in vectors() {
        let message = decode(&octets).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        insta::assert_debug_snapshot!(name.clone(), message);
        assert_eq!(encode(&message), octets, "{name}");
    }
}

#[test]
fn messages_come_out_of_a_stream_one_octet_at_a_time() {
    let all = vectors();
    let mut buffer = BytesMut::new();
    let mut read = Vec::new();
    for (_, octets) in &all {
        for octet in octets {
            buffer.put_u8(*octet);
            read.extend(bmp::poll(&mut buffer, MAX_LENGTH).unwrap());
        }
    }
    let written: Vec<u8> = read.iter().flat_map(|message| encode(message).to_vec()).collect();
    let all: Vec<u8> = all.into_iter().flat_map(|(_, octets)| octets).collect();
    assert_eq!(written, all);
}

/// Whatever one octet becomes, the decoder answers; and what it accepts it writes so that it reads the same again.
#[test]
fn no_single_octet_brings_the_decoder_down() {
    for (name, mut octets) in vectors() {
        for at in 0..octets.len() {
            let before = octets[at];
            for octet in 0..=u8::MAX {
                octets[at] = octet;
                let mut buffer = BytesMut::from(&octets[..]);
                if let Ok(Some(message)) = bmp::poll(&mut buffer, MAX_LENGTH) {
                    assert_eq!(decode(&encode(&message)), Some(Ok(message)), "{name} at {at}");
                }
            }
            octets[at] = before;
        }
    }
}

/// Every shorter message under a header that agrees with it: refused but where what is left is a message too.
#[test]
fn no_truncation_brings_the_decoder_down() {
    for (name, octets) in vectors() {
        for length in 0..octets.len() {
            assert_eq!(decode(&octets[..length]), None, "{name}: the whole must be waited for");
            let mut cut = octets[..length].to_vec();
            if let Some(field) = cut.get_mut(1..5) {
                field.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            }
            if let Some(Ok(message)) = decode(&cut) {
                assert_eq!(encode(&message), cut, "{name}");
            }
        }
    }
}

#[test]
fn a_wrong_header_is_refused_before_the_rest_is_there() {
    let poll = |octets: &[u8]| bmp::poll(&mut BytesMut::from(octets), 100);
    assert_eq!(poll(&[]), Ok(None));
    assert_eq!(poll(&[2]), Err(Malformed::Version(2)));
    assert_eq!(poll(&[3, 0, 0, 0, 5, 4]), Err(Malformed::Length(5)));
    assert_eq!(poll(&[3, 0, 0, 0, 101, 4]), Err(Malformed::Length(101)));
    assert_eq!(poll(&[3, 0, 0, 0, 100, 4]), Ok(None));
}

/// What stands inside must be what the type of the message says.
#[test]
fn a_route_is_not_a_keepalive_and_an_open_is_not_an_update() {
    let of = |name: &str| vectors().into_iter().find(|(other, _)| other == name).unwrap().1;
    let mut route = of("route-monitoring-in");
    route[6 + 42 + 18] = 4;
    assert_eq!(decode(&route), Some(Err(Malformed::Part("Route Monitoring"))));
    let mut up = of("peer-up");
    up[6 + 42 + 20 + 18] = 2;
    assert_eq!(decode(&up), Some(Err(Malformed::Part("Peer Up"))));
    let mut down = of("peer-down-3");
    down[6 + 42 + 1 + 18] = 2;
    assert_eq!(decode(&down), Some(Err(Malformed::Part("Peer Down"))));
    let mut more = of("statistics");
    more[6 + 42 + 3] += 1;
    assert_eq!(decode(&more), Some(Err(Malformed::Part("Statistics Report"))));
}
