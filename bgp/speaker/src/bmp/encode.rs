//! A peer's routes and their changes as BMP messages, piece by piece, so that a large RIB is never one buffer.
use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi,
    bmp::{Message, PeerHeader, Rib},
    rib::{Change, Route},
    wire::{CodecContext, EncodedAttributes, Nlri, write_end_of_rib, write_reach, write_withdraw},
};

use super::Monitored;

/// The header of messages about one RIB of a peer.
pub(super) fn header(session: &Monitored, rib: Rib, at: Option<Duration>) -> PeerHeader {
    let two_octet_as_path = match rib {
        Rib::OutPrePolicy | Rib::OutPostPolicy => !session.sent.four_octet_asn,
        Rib::InPrePolicy | Rib::InPostPolicy => false,
    };
    PeerHeader { rib, two_octet_as_path, timestamp: at, ..session.header }
}

/// Writes one UPDATE as it is.
pub(super) fn route_monitoring(peer: PeerHeader, update: Bytes, out: &mut BytesMut) {
    Message::RouteMonitoring { peer, update }.encode(out);
}

pub(super) fn end_of_rib(peer: PeerHeader, family: AfiSafi, out: &mut BytesMut) {
    let mut update = BytesMut::new();
    write_end_of_rib(family, &mut update);
    route_monitoring(peer, update.freeze(), out);
}

/// Routes that wait to be written, in groups that share attributes and next hop.
pub(super) struct Pending {
    peer: PeerHeader,
    context: CodecContext,
    withdrawn: Vec<(AfiSafi, Vec<Nlri>)>,
    announced: Vec<(AfiSafi, Route, Vec<Nlri>)>,
}

impl Pending {
    pub(super) fn routes(peer: PeerHeader, context: CodecContext, routes: &[(Nlri, Route)]) -> Pending {
        Pending {
            peer,
            context,
            withdrawn: Vec::new(),
            announced: groups(routes.iter().map(|(n, r)| (*n, r))),
        }
    }

    /// Of several changes of a prefix the last counts.
    pub(super) fn changes(peer: PeerHeader, context: CodecContext, changes: &[Change]) -> Pending {
        let mut last: HashMap<Nlri, &Change> = HashMap::with_capacity(changes.len());
        for change in changes {
            last.insert(change.nlri, change);
        }
        // In their own order, so that what is told does not depend on a hash.
        let counts = |change: &&Change| std::ptr::eq(last[&change.nlri], *change);
        let gone = |family: AfiSafi| {
            let gone = changes.iter().filter(counts).filter(|change| change.route.is_none());
            let nlri = gone.map(|change| change.nlri).filter(|nlri| nlri.prefix.family() == family);
            (family, nlri.collect::<Vec<_>>())
        };
        let withdrawn = AfiSafi::ALL.map(gone).into_iter().filter(|(_, nlri)| !nlri.is_empty()).collect();
        let here = changes.iter().filter(counts);
        let here = here.filter_map(|change| Some((change.nlri, &change.route.as_ref()?.route)));
        Pending { peer, context, withdrawn, announced: groups(here) }
    }

    /// Appends one message; false where none is left. A route that no message holds is left out: its peer could
    /// not have sent it either.
    pub(super) fn poll(&mut self, out: &mut BytesMut) -> bool {
        let mut update = BytesMut::new();
        while let Some((family, nlri)) = self.withdrawn.last_mut() {
            let written = write_withdraw(*family, nlri.iter().rev().copied(), &self.context, &mut update);
            take_last(nlri, written);
            if written == 0 || nlri.is_empty() {
                self.withdrawn.pop();
            }
            if written > 0 {
                route_monitoring(self.peer, update.freeze(), out);
                return true;
            }
        }
        while let Some((family, route, nlri)) = self.announced.last_mut() {
            let attributes = EncodedAttributes::new(&route.attributes, &self.context);
            let next_hop = &route.next_hop;
            let rest = nlri.iter().rev().copied();
            let written = write_reach(*family, &attributes, next_hop, rest, &self.context, &mut update);
            take_last(nlri, written);
            if written == 0 || nlri.is_empty() {
                self.announced.pop();
            }
            if written > 0 {
                route_monitoring(self.peer, update.freeze(), out);
                return true;
            }
        }
        false
    }
}

fn take_last(nlri: &mut Vec<Nlri>, count: usize) {
    nlri.truncate(nlri.len().saturating_sub(count));
}

/// Routes by family, attributes and next hop, in the order of the first of each group.
fn groups<'a>(routes: impl Iterator<Item = (Nlri, &'a Route)>) -> Vec<(AfiSafi, Route, Vec<Nlri>)> {
    let mut places: HashMap<(AfiSafi, &Route), usize> = HashMap::new();
    let mut groups: Vec<(AfiSafi, Route, Vec<Nlri>)> = Vec::new();
    for (nlri, route) in routes {
        let family = nlri.prefix.family();
        let place = *places.entry((family, route)).or_insert_with(|| {
            groups.push((family, route.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].2.push(nlri);
    }
    groups
}
