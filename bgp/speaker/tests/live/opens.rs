//! Every single field of an OPEN, changed, over a fresh connection: refused by the NOTIFICATION that the RFC asks
//! for, or a session.
use anyhow::{Context, Result, ensure};

use crate::{
    peer::{OPEN, RawPeer, message},
    site::{EXTERNAL_ASN, LOCAL_ASN, Site, Sort},
};

/// What the speaker does with an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Session,
    Refused(u8, u8),
}
use Answer::{Refused, Session};

/// OPEN Message Error / Unspecific: an optional parameter that is recognized and malformed (RFC 4271 section 6.2).
const MALFORMED: Answer = Refused(2, 0);

/// The fields of an OPEN.
#[derive(Clone)]
struct Fields {
    version: u8,
    asn: u16,
    hold_time: u16,
    router_id: u32,
    parameters: Vec<u8>,
}

fn fields(sort: Sort) -> Fields {
    let asn = if sort == Sort::External { EXTERNAL_ASN } else { LOCAL_ASN };
    let parameters = parameter(&capability(1, &[0, 1, 0, 1]));
    Fields { version: 4, asn: u16::try_from(asn).unwrap(), hold_time: 90, router_id: 0x0a00_0102, parameters }
}

impl Fields {
    fn body(&self, parameters_length: u8) -> Vec<u8> {
        let mut body = vec![self.version];
        body.extend(self.asn.to_be_bytes());
        body.extend(self.hold_time.to_be_bytes());
        body.extend(self.router_id.to_be_bytes());
        body.push(parameters_length);
        body.extend(&self.parameters);
        body
    }

    fn octets(&self) -> Vec<u8> {
        message(OPEN, &self.body(u8::try_from(self.parameters.len()).unwrap()))
    }
}

fn capability(code: u8, value: &[u8]) -> Vec<u8> {
    [&[code, u8::try_from(value.len()).unwrap()], value].concat()
}

/// An optional parameter of type 2, capabilities.
fn parameter(capabilities: &[u8]) -> Vec<u8> {
    [&[2, u8::try_from(capabilities.len()).unwrap()], capabilities].concat()
}

/// Sends the OPEN on a connection of its own and looks whether the answer is the expected one.
async fn check(site: &Site, open: &[u8], expected: Answer) -> Result<()> {
    let mut peer = RawPeer::connect(site, 2).await?;
    match expected {
        Session => {
            peer.handshake(site, open).await?;
            peer.leave(site).await
        }
        Refused(code, subcode) => {
            peer.send(open).await?;
            let refusal = peer.refusal().await?;
            ensure!((refusal.code, refusal.subcode) == (code, subcode), "{refusal}");
            // RFC 4271 section 6.2: the data of Unsupported Version Number is the version that is spoken, and ours of
            // all others is empty.
            let data: &[u8] = if (code, subcode) == (2, 1) { &[0, 4] } else { &[] };
            ensure!(refusal.data == data, "{refusal}");
            Ok(())
        }
    }
}

/// Checks each; then a right OPEN must still lead to a session that takes routes.
async fn check_all(sort: Sort, opens: impl IntoIterator<Item = (String, Vec<u8>, Answer)>) {
    let site = Site::new([(2, sort)]).await;
    for (what, open, expected) in opens {
        check(&site, &open, expected).await.with_context(|| format!("{what}: {expected:?}")).unwrap();
    }
    let mut peer = RawPeer::establish(&site, 2).await.unwrap();
    peer.marker_arrives(&site).await.unwrap();
}

/// RFC 4271 section 6.2, RFC 6286 and RFC 7607.
#[tokio::test]
async fn fixed_fields() {
    let valid = fields(Sort::External);
    let mut opens = Vec::new();
    let mut add = |what: String, fields: Fields, answer| opens.push((what, fields.octets(), answer));
    for version in 0..=u8::MAX {
        let answer = if version == 4 { Session } else { Refused(2, 1) };
        add(format!("version {version}"), Fields { version, ..valid.clone() }, answer);
    }
    for hold_time in (0..=10).chain([65535]) {
        let answer = if matches!(hold_time, 1 | 2) { Refused(2, 6) } else { Session };
        add(format!("hold time {hold_time}"), Fields { hold_time, ..valid.clone() }, answer);
    }
    // RFC 6286 section 2.1: any number but zero; an external peer may have the same as we (section 2.2).
    for (router_id, answer) in [
        (0, Refused(2, 3)),
        (1, Session),
        (0x0a00_0001, Session),
        (0xe000_0001, Session),
        (u32::MAX, Session),
    ] {
        add(format!("router ID {router_id:#x}"), Fields { router_id, ..valid.clone() }, answer);
    }
    // RFC 4271 section 6.2 and RFC 7607 section 2.
    for asn in [0, 1, 23456, 65000, 65535] {
        add(format!("AS {asn}"), Fields { asn, ..valid.clone() }, Refused(2, 2));
    }
    check_all(Sort::External, opens).await;
}

/// RFC 6286 section 2.2: within an AS the identifiers must differ.
#[tokio::test]
async fn our_own_identifier_from_an_internal_peer() {
    let valid = fields(Sort::Internal);
    let ours = Fields { router_id: 0x0a00_0001, ..valid.clone() };
    let opens = [("ours", ours, Refused(2, 3)), ("its own", valid, Session)];
    check_all(Sort::Internal, opens.map(|(what, fields, answer)| (what.into(), fields.octets(), answer)))
        .await;
}

/// RFC 4271 section 6.2: lengths that do not meet the end of what they cover, of the whole field, of a parameter
/// and of a capability; and parameters of other types.
#[tokio::test]
async fn length_fields() {
    let valid = fields(Sort::External);
    let right = u8::try_from(valid.parameters.len()).unwrap();
    let mut opens = Vec::new();
    for length in 0..=u8::MAX {
        let answer = |right| if length == right { Session } else { MALFORMED };
        let open = message(OPEN, &valid.body(length));
        opens.push((format!("parameters length {length}"), open, answer(right)));
        // Without a value the first capability stands where the next parameter would: its code is no type.
        let parameter = if length == 0 { Refused(2, 4) } else { answer(right - 2) };
        for (place, what, answer) in [(1, "parameter", parameter), (3, "capability", answer(right - 4))] {
            let mut fields = valid.clone();
            fields.parameters[place] = length;
            opens.push((format!("{what} length {length}"), fields.octets(), answer));
        }
    }
    for kind in 0..=u8::MAX {
        let mut fields = valid.clone();
        fields.parameters[0] = kind;
        let answer = match kind {
            2 => Session,
            // RFC 9072 section 2: the extended form, whose length of two octets is then far too long.
            255 => MALFORMED,
            _ => Refused(2, 4),
        };
        opens.push((format!("parameter type {kind}"), fields.octets(), answer));
    }
    check_all(Sort::External, opens).await;
}

/// The same in the extended form of RFC 9072 section 2.
#[tokio::test]
async fn extended_length_fields() {
    let inner = capability(1, &[0, 1, 0, 1]);
    let extended = |octet: u8, total: u16, length: u16| {
        let [a, b] = total.to_be_bytes();
        let [c, d] = length.to_be_bytes();
        let parameters = [&[255, a, b, 2, c, d], &inner[..]].concat();
        message(OPEN, &Fields { parameters, ..fields(Sort::External) }.body(octet))
    };
    let mut opens = Vec::new();
    // Any length octet but zero is ignored; zero says that there are no parameters, yet more octets follow.
    for octet in [1, 2, 9, 254, 255] {
        opens.push((format!("ignored length {octet}"), extended(octet, 9, 6), Session));
    }
    opens.push(("length 0".into(), extended(0, 9, 6), MALFORMED));
    for length in (0..=20).chain([255, 256, 4096, 65535]) {
        let answer = |right| if length == right { Session } else { MALFORMED };
        opens.push((format!("extended length {length}"), extended(255, length, 6), answer(9)));
        let parameter = if length == 0 { Refused(2, 4) } else { answer(6) };
        opens.push((format!("parameter length {length}"), extended(255, 9, length), parameter));
    }
    check_all(Sort::External, opens).await;
}

/// Each capability that we know with a value of each length, and one that we do not know (RFC 5492 section 3:
/// ignored, whatever it holds).
#[tokio::test]
async fn capability_lengths() {
    let [high, low] = u16::try_from(EXTERNAL_ASN).unwrap().to_be_bytes();
    let (v4, asn) = ([0, 1, 0, 1], [0, 0, high, low]);
    // Code, value to begin with, and which lengths its RFC gives a meaning to.
    type Allowed = fn(usize) -> bool;
    let known: [(u8, &[u8], Allowed, &str); 8] = [
        (1, &v4, |length| length == 4, "RFC 4760 section 8"),
        (2, &[], |length| length == 0, "RFC 2918 section 2"),
        (5, &[], |length| length.is_multiple_of(6), "RFC 8950 section 4"),
        (6, &[], |length| length == 0, "RFC 8654 section 3"),
        (64, &[], |length| length >= 2 && (length - 2).is_multiple_of(4), "RFC 4724 section 3"),
        (65, &asn, |length| length == 4, "RFC 6793 section 3"),
        (70, &[], |length| length == 0, "RFC 7313 section 3.1"),
        (200, &[], |_| true, "RFC 5492 section 3"),
    ];
    let mut opens = Vec::new();
    for (code, value, allowed, source) in known {
        for length in (0..=26).chain([100, 251]) {
            let mut value = value.to_vec();
            value.resize(length, 0);
            let parameters = parameter(&capability(code, &value));
            // Beside it stands the family, lest none be left in common.
            let family = parameter(&capability(1, &v4));
            if parameters.len() + family.len() >= 255 {
                continue;
            }
            let parameters = [family, parameters].concat();
            let open = Fields { parameters, ..fields(Sort::External) }.octets();
            let answer = if allowed(length) { Session } else { MALFORMED };
            opens.push((format!("capability {code} of {length} octets ({source})"), open, answer));
        }
    }
    // RFC 7607 section 2, and a wide number that is not the peer's.
    for number in [0_u32, 65002, u32::MAX] {
        let parameters = parameter(&capability(65, &number.to_be_bytes()));
        let open = Fields { parameters, ..fields(Sort::External) }.octets();
        opens.push((format!("four-octet AS {number}"), open, Refused(2, 2)));
    }
    check_all(Sort::External, opens).await;
}

/// Negative control: the check tells a session from a refusal, and one refusal from another.
#[tokio::test]
async fn a_wrong_answer_is_found() {
    let site = Site::new([(2, Sort::External)]).await;
    let valid = fields(Sort::External);
    let wrong = Fields { version: 3, ..valid.clone() }.octets();
    check(&site, &wrong, Session).await.expect_err("version 3 is no session");
    check(&site, &wrong, Refused(2, 3)).await.expect_err("the wrong subcode");
    check(&site, &wrong, Refused(2, 1)).await.unwrap();
    check(&site, &valid.octets(), Session).await.unwrap();
}
