//! Reads an UPDATE and applies the strongest verdict that RFC 7606 asks for.
use std::{mem, sync::Arc};

use nom::{Parser, multi::length_data, number::complete::be_u16};

use super::{Decoded, Finding, Reach, Unreach, Update, Verdict};
use crate::{
    AfiSafi,
    wire::{
        CodecContext, NextHop, Nlri, Notification,
        attribute::decode::AttributeList,
        iana::{attribute as code, error},
        nlri::{self, InvalidNetwork},
        parse::Parsed,
    },
};

/// Parses the body of an UPDATE.
pub(in crate::wire) fn decode(body: &[u8], context: &CodecContext) -> Decoded {
    let fields: Parsed<'_, (&[u8], &[u8])> = (length_data(be_u16), length_data(be_u16)).parse(body);
    // RFC 4271 section 6.3: lengths beyond the message are a malformed attribute list.
    let (nlri, (withdrawn, list)) =
        fields.map_err(|_| Notification::update(error::MALFORMED_ATTRIBUTE_LIST, &[]))?;
    if nlri.is_empty() && withdrawn.is_empty() && list.is_empty() {
        let end_of_rib = Some(AfiSafi::Ipv4Unicast);
        return Ok((Update { end_of_rib, ..Update::default() }, Vec::new()));
    }
    let withdrawn = classic(withdrawn, context)?;
    let nlri = classic(nlri, context)?;
    let mut list = AttributeList::decode(list, context)?;
    check_mandatory(&mut list, !nlri.is_empty(), context);

    let end_of_rib = if withdrawn.is_empty() && nlri.is_empty() && !list.has_more_than_unreach() {
        end_of_rib(&list)
    } else {
        None
    };
    let announces = !nlri.is_empty()
        || match &list.reach {
            None => false,
            Some(None) => true,
            Some(Some(reach)) => !reach.nlri.is_empty(),
        };
    let mut update = Update { end_of_rib, ..assemble(&mut list, withdrawn, nlri) };
    let strongest = list.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    match strongest {
        Verdict::Ok | Verdict::IgnorePrefix | Verdict::DiscardAttribute => {
            list.findings.extend(ignore_senseless(&mut update));
            Ok((update, list.findings))
        }
        // RFC 7606 section 5.2: attributes without a prefix mean that we may have failed to find the prefixes.
        Verdict::TreatAsWithdraw if !announces && list.has_more_than_unreach() => {
            let otherwise = Notification::update(error::MALFORMED_ATTRIBUTE_LIST, &[]);
            Err(list.reset.unwrap_or(otherwise))
        }
        Verdict::TreatAsWithdraw => Ok((withdraw_all(update), list.findings)),
    }
}

/// The prefixes of the two classic fields; their errors reset the session (RFC 7606 sections 3 i, 3 j and 5.3).
fn classic(field: &[u8], context: &CodecContext) -> Result<Vec<Nlri>, Notification> {
    let family = AfiSafi::Ipv4Unicast;
    nlri::decode_all(family, field, context.add_path_receive.contains(family))
        .map_err(|InvalidNetwork| Notification::update(error::INVALID_NETWORK, &[]))
}

/// RFC 7606 section 3 d. Of these NEXT_HOP is only for the classic field, and ignored without it (RFC 4760
/// section 3); LOCAL_PREF only within an AS (RFC 4271 section 5.1.5).
fn check_mandatory(list: &mut AttributeList, classic: bool, context: &CodecContext) {
    if !classic && list.reach.is_none() {
        return;
    }
    let needed = [
        (code::ORIGIN, true, "ORIGIN is missing (RFC 7606 section 3 d)"),
        (code::AS_PATH, true, "AS_PATH is missing (RFC 7606 section 3 d)"),
        (code::NEXT_HOP, classic, "NEXT_HOP is missing (RFC 7606 section 3 d)"),
        (code::LOCAL_PREF, context.internal, "LOCAL_PREF is missing (RFC 4271 section 5.1.5)"),
    ];
    for (code, needed, reason) in needed {
        if needed && !list.has(code) {
            list.note(Verdict::TreatAsWithdraw, code, reason, || {
                Notification::update(error::MISSING_WELL_KNOWN, &[code])
            });
        }
    }
    if classic && list.next_hop.is_some_and(|address| NextHop::V4(address).is_martian()) {
        let reason = "next hop is no host address (RFC 4271 section 6.3)";
        list.note(Verdict::TreatAsWithdraw, code::NEXT_HOP, reason, || {
            Notification::update(error::INVALID_NEXT_HOP, &[])
        });
    }
}

/// RFC 4724 section 2: nothing but an MP_UNREACH_NLRI without a prefix.
fn end_of_rib(list: &AttributeList) -> Option<AfiSafi> {
    let unreach = list.unreach.as_ref()?.as_ref()?;
    unreach.nlri.is_empty().then_some(unreach.family)
}

/// Withdrawals and announcements in their places. Without a next hop there is a finding, and the prefixes get
/// withdrawn: the unspecified address only holds their place until then.
fn assemble(list: &mut AttributeList, withdrawn: Vec<Nlri>, nlri: Vec<Nlri>) -> Update {
    let family = AfiSafi::Ipv4Unicast;
    let mut unreach = Vec::new();
    if !withdrawn.is_empty() {
        unreach.push(Unreach { family, nlri: withdrawn });
    }
    unreach.extend(list.unreach.take().flatten().filter(|unreach| !unreach.nlri.is_empty()));
    let mut reach = Vec::new();
    if !nlri.is_empty() {
        let address = list.next_hop.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
        reach.push(Reach { family, next_hop: NextHop::V4(address), nlri });
    }
    let announced = list.reach.take().map(|reach| reach.filter(|reach| !reach.nlri.is_empty()));
    reach.extend(announced.flatten());
    let attributes = mem::take(&mut list.attributes);
    let attributes = if reach.is_empty() { Arc::default() } else { Arc::new(attributes) };
    Update { unreach, reach, attributes, end_of_rib: None }
}

/// A prefix that no unicast route can have is ignored alone (RFC 4271 section 6.3).
fn ignore_senseless(update: &mut Update) -> Option<Finding> {
    let announced = |update: &Update| update.reach.iter().map(|reach| reach.nlri.len()).sum::<usize>();
    let before = announced(update);
    for reach in &mut update.reach {
        reach.nlri.retain(Nlri::is_unicast);
    }
    let reason = "multicast or link-local prefix among unicast ones (RFC 4271 section 6.3)";
    let ignored = announced(update) < before;
    update.reach.retain(|reach| !reach.nlri.is_empty());
    if update.reach.is_empty() {
        update.attributes = Arc::default();
    }
    ignored.then_some(Finding { verdict: Verdict::IgnorePrefix, attribute: 0, reason })
}

/// RFC 7606 section 2: as if the announced prefixes had been withdrawn.
fn withdraw_all(mut update: Update) -> Update {
    let announced = mem::take(&mut update.reach).into_iter();
    update.unreach.extend(announced.map(|reach| Unreach { family: reach.family, nlri: reach.nlri }));
    update.attributes = Arc::default();
    update
}
