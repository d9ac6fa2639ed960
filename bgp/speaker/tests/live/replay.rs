//! RFC 7606 over live sessions: the cases of `bgp/proto/tests/data/frr-rfc7606`, each as one UPDATE to a real
//! speaker, by an external and by an internal peer.
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    peer::{Attribute, RawPeer, attributes, update, valid, with},
    site::{Site, Sort},
};

const ROUTE: &str = "192.0.2.0/24";
const NLRI: [u8; 4] = [24, 192, 0, 2];

/// Where Plainroute gives another answer than the file, and why. The same list as that of the decoder's test,
/// `bgp/proto/tests/wire_rfc7606.rs`.
const DEVIATIONS: [(&str, Outcome, &str); 1] = [(
    "as4path-seg-type-0",
    Outcome::Discard,
    "RFC 6793 section 6 says to discard a malformed AS4_PATH, and section 4.1 to discard any between two speakers \
     of four octets; the route stands by its AS_PATH",
)];

/// Attributes that Plainroute does not know: transitive ones are kept, marked as partial (RFC 4271 section 5), and
/// the route stands, which is what the file means by `discard` here.
const KEPT_AS_UNKNOWN: [&str; 3] = ["unknown-fe-transitive", "nhc-bad-afi-safi", "nhc-tlv-overrun"];

/// Not malformed at all: unknown and not transitive, so ignored without a finding (RFC 4271 section 5).
const IGNORED_AS_UNKNOWN: &str = "unknown-fd-nontransitive";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Withdraw,
    Discard,
    KeepAsUnknown,
    IgnoreAsUnknown,
    Reset(u8, u8),
}

#[derive(Clone, Debug)]
struct Case {
    name: String,
    attribute: Attribute,
    outcome: Outcome,
}

/// The cases that apply to this sort of peer, and how many there are in all.
fn cases(sort: Sort) -> (Vec<Case>, usize) {
    let text = include_str!("../../../proto/tests/data/frr-rfc7606/cases.json");
    let all: Vec<Value> = serde_json::from_str(text).unwrap();
    let key = if sort == Sort::External { "ebgp" } else { "ibgp" };
    let applies =
        |case: &&Value| !case["skip_sorts"].as_array().unwrap().iter().any(|skipped| skipped == key);
    (all.iter().filter(applies).map(|case| read(case, key)).collect(), all.len())
}

fn read(case: &Value, key: &str) -> Case {
    let name = case["name"].as_str().unwrap().to_owned();
    let octet = |value: &Value| u8::try_from(value.as_u64().unwrap()).unwrap();
    let attribute = match case["nexthop"].as_str() {
        Some(address) => (0x40, 3, address.parse::<Ipv4Addr>().unwrap().octets().to_vec()),
        None => (octet(&case["flags"]), octet(&case["attr_type"]), hex(case["value_hex"].as_str().unwrap())),
    };
    let deviation = DEVIATIONS.iter().find(|(deviation, ..)| *deviation == name);
    let outcome = match (deviation, case["outcome"][key].as_str().unwrap()) {
        (Some((_, outcome, _)), _) => *outcome,
        (None, "withdraw") => Outcome::Withdraw,
        (None, "discard") if KEPT_AS_UNKNOWN.contains(&name.as_str()) => Outcome::KeepAsUnknown,
        (None, "discard") if name == IGNORED_AS_UNKNOWN => Outcome::IgnoreAsUnknown,
        (None, "discard") => Outcome::Discard,
        (None, "session-reset") => {
            let codes = &case["expect_notification"];
            Outcome::Reset(octet(&codes[0]), octet(&codes[1]))
        }
        (None, other) => panic!("{name}: unknown outcome {other}"),
    };
    Case { name, attribute, outcome }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Sends the attribute in an otherwise valid UPDATE and looks for the outcome at the speaker; then a valid route
/// must still arrive, on the same session unless the outcome is a reset.
async fn check(site: &Site, peer: &mut RawPeer, case: &Case) -> Result<()> {
    let (number, sort) = (peer.number, peer.sort);
    let announcement = update(&[], &attributes(&valid(sort)), &NLRI);
    let withdrawal = update(&NLRI, &[], &[]);
    let malformed = update(&[], &attributes(&with(sort, case.attribute.clone())), &NLRI);
    let sessions = site.status(number).counters.established;

    ensure!(!peer.update(site, &announcement).await?, "the valid route is said to be malformed");
    let plain = site.route(number, ROUTE).await.context("the valid route did not come in")?;
    match case.outcome {
        Outcome::Withdraw => {
            let found = peer.update(site, &malformed).await?;
            let route = site.route(number, ROUTE).await;
            ensure!(route.is_none(), "still there: {route:?}");
            ensure!(found, "withdrawn, but not counted as malformed");
        }
        Outcome::Discard | Outcome::KeepAsUnknown | Outcome::IgnoreAsUnknown => {
            // Else a speaker that ignores the whole UPDATE would pass too.
            peer.update(site, &withdrawal).await?;
            ensure!(site.route(number, ROUTE).await.is_none(), "a withdrawal did not withdraw");
            let found = peer.update(site, &malformed).await?;
            let route = site.route(number, ROUTE).await.context("the route did not come in")?;
            ensure!(found == (case.outcome == Outcome::Discard), "counted as malformed: {found}");
            let mut wanted = (*plain.attributes).clone();
            if case.outcome == Outcome::KeepAsUnknown {
                wanted.unknown.clone_from(&route.attributes.unknown);
                let [raw] = &wanted.unknown[..] else { bail!("not one unknown attribute: {route:?}") };
                let (_, code, value) = &case.attribute;
                ensure!((raw.flags, raw.code, &raw.value[..]) == (0xe0, *code, &value[..]), "{raw:?}");
            }
            ensure!(*route.attributes == wanted, "{:?} instead of {wanted:?}", route.attributes);
        }
        Outcome::Reset(code, subcode) => {
            peer.is_refused(site, &malformed, (code, subcode)).await?;
            ensure!(site.route(number, ROUTE).await.is_none(), "the route outlived its session");
            ensure!(site.status(number).counters.established == sessions + 1, "more than one reset");
            return peer.marker_arrives(site).await;
        }
    }
    peer.marker_arrives(site).await?;
    ensure!(site.status(number).counters.established == sessions, "the session is another one");
    Ok(())
}

async fn replay(sort: Sort, expected: usize) {
    let mut site = Site::new([(2, sort)]).await;
    let mut peer = RawPeer::establish(&site, 2).await.unwrap();
    let (cases, all) = cases(sort);
    assert_eq!((cases.len(), all), (expected, 88));
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(error) = check(&site, &mut peer, case).await {
            failures.push(format!("{} {sort:?}: {error:#}", case.name));
            // The session may be in any state: the next case begins with a fresh speaker.
            site = Site::new([(2, sort)]).await;
            peer = RawPeer::establish(&site, 2).await.unwrap();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
async fn the_cases_of_frr_from_an_external_peer() {
    replay(Sort::External, 81).await;
}

#[tokio::test]
async fn the_cases_of_frr_from_an_internal_peer() {
    replay(Sort::Internal, 88).await;
}

/// Negative control: a peer that sends something else than the case says must be found out.
#[tokio::test]
async fn a_wrong_outcome_is_found() {
    let origin = |value| (0x40, 1, vec![value]);
    let med = |length| (0x80, 4, vec![0; length]);
    let aggregator = (0xc0, 7, vec![0; 5]);
    let mp_reach = (0x80, 14, vec![0, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (attribute, outcome, complaint) in [
        (origin(1), Outcome::Withdraw, "still there"),
        (aggregator.clone(), Outcome::Withdraw, "still there"),
        (mp_reach.clone(), Outcome::Withdraw, "the session was lost"),
        (med(3), Outcome::Discard, "the route did not come in"),
        (origin(1), Outcome::IgnoreAsUnknown, "instead of"),
        (med(4), Outcome::Discard, "counted as malformed: false"),
        (aggregator, Outcome::KeepAsUnknown, "counted as malformed: true"),
        (mp_reach, Outcome::Reset(3, 9), "instead of (3, 9)"),
    ] {
        let site = Site::new([(2, Sort::External)]).await;
        let mut peer = RawPeer::establish(&site, 2).await.unwrap();
        let case = Case { name: complaint.to_owned(), attribute, outcome };
        let error = check(&site, &mut peer, &case).await.expect_err(complaint);
        assert!(format!("{error:#}").contains(complaint), "{case:?}: {error:#}");
    }
}
