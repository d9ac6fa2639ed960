//! Adj-RIB-Out: what one peer is to hold (desired) and what it was told (sent), and the way from one to the other.
//!
//! There is no queue of messages. The speaker polls for the next UPDATE whenever the socket takes bytes, and gets
//! what is still different at that moment: withdrawals first, then announcements group by group, End-of-RIB last.
//! A route that came and went while the socket was full costs nothing.
use std::hash::Hash;

use bytes::BytesMut;

use super::{
    Route,
    pack::{self, Packer},
    table::Table,
};
use crate::{
    AfiSafi, Families, Prefix,
    wire::{CodecContext, RouteRefresh, write_end_of_rib},
};

/// One route that a peer is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised<'a, D> {
    /// The prefix.
    pub prefix: Prefix,
    /// What is desired of it.
    pub desired: &'a D,
    /// Attributes and next hop as this session says them; `None` where it did not or cannot.
    pub route: Option<&'a Route>,
    /// Whether the peer was told in this session.
    pub sent: bool,
}

/// What one peer is to hold and what it was told.
///
/// ```
/// # use bytes::BytesMut;
/// # use plainroute_bgp::{Families, rib::{AdjRibOut, Route}, wire::{CodecContext, NextHop, PathAttributes}};
/// let mut rib = AdjRibOut::new();
/// let next_hop = NextHop::V4([192, 0, 2, 1].into());
/// rib.set_desired("10.1.0.7/32".parse().unwrap(), Some(Route::new(PathAttributes::default(), next_hop)));
/// rib.session_up(Families::ALL);
/// let mut bytes = BytesMut::new();
/// while rib.poll_update(&CodecContext::default(), &mut bytes) {}
/// assert!(rib.pending_empty() && !bytes.is_empty());
/// ```
///
/// What is desired need not be a route: a program that says the same to many peers may desire what it says in its own
/// terms, `D`, and have each session turn it into a route when it is first told ([`Self::poll_update_with`]).
pub struct AdjRibOut<D = Route> {
    tables: [Table<D>; 2],
    /// The families of the session; `None` without one.
    session: Option<Families>,
    /// The initial routes are complete: End-of-RIB may be told.
    released: bool,
    /// Families whose End-of-RIB this session has not been told.
    end_of_rib_owed: Families,
    /// Families that are to be told again from the beginning, and said so (RFC 7313).
    refresh_owed: Families,
    /// Families that are being told again; the end is to be said.
    refreshing: Families,
    version: u64,
    flushed: u64,
    packer: Packer,
}

impl<D: Eq + Hash> Default for AdjRibOut<D> {
    fn default() -> AdjRibOut<D> {
        AdjRibOut::new()
    }
}

impl AdjRibOut {
    /// Appends the next UPDATE to `out`; false where there is nothing to say. The caller stops polling where `out`
    /// is long enough for the socket. `context` must be that of the session.
    pub fn poll_update(&mut self, context: &CodecContext, out: &mut BytesMut) -> bool {
        self.poll_update_with(context, |_, route| Some(route.clone()), out)
    }
}

impl<D: Eq + Hash> AdjRibOut<D> {
    /// Nothing desired, no session.
    pub fn new() -> AdjRibOut<D> {
        AdjRibOut {
            tables: AfiSafi::ALL.map(Table::new),
            session: None,
            released: false,
            end_of_rib_owed: Families::NONE,
            refresh_owed: Families::NONE,
            refreshing: Families::NONE,
            version: 0,
            flushed: 0,
            packer: Packer::default(),
        }
    }

    /// What the peer is to hold of `prefix` from now on; `None`: nothing. False where that is no change.
    pub fn set_desired(&mut self, prefix: Prefix, desired: Option<D>) -> bool {
        let changed = self.table(prefix.family()).set_desired(prefix, desired);
        if changed {
            self.version += 1;
            self.note_flushed();
        }
        changed
    }

    /// The session is Established with `families`: the peer is told everything, and the End-of-RIB of each family
    /// once, when it is released.
    pub fn session_up(&mut self, families: Families) {
        self.session_down();
        for family in families.iter() {
            self.table(family).session_up();
        }
        self.session = Some(families);
        self.end_of_rib_owed = families;
        self.packer.forget();
        self.version += 1;
        self.note_flushed();
    }

    /// The session is gone; what is desired stays.
    pub fn session_down(&mut self) {
        if self.session.take().is_some() {
            self.tables.iter_mut().for_each(Table::session_down);
        }
        self.end_of_rib_owed = Families::NONE;
        self.refresh_owed = Families::NONE;
        self.refreshing = Families::NONE;
        self.note_flushed();
    }

    /// The peer asked to hear all of `family` again (RFC 2918). Its End-of-RIB is not told again. Without that
    /// family in the session nothing happens.
    ///
    /// Where the session has enhanced refresh (RFC 7313), the routes stand between its marks. Before End-of-RIB
    /// there are none: the peer is to ignore them then (section 4.1).
    pub fn refresh(&mut self, family: AfiSafi) {
        if self.session.is_some_and(|families| families.contains(family)) {
            self.table(family).refresh();
            if !self.end_of_rib_owed.contains(family) {
                self.refresh_owed.insert(family);
            }
            self.version += 1;
            self.note_flushed();
        }
    }

    /// What is desired is complete: this session and every later one ends its initial routes with End-of-RIB
    /// (RFC 4724 section 2). Before that the peer must keep what it holds of us.
    pub fn release_end_of_rib(&mut self) {
        self.released = true;
    }

    /// Whether [`Self::release_end_of_rib`] was called.
    pub const fn end_of_rib_released(&self) -> bool {
        self.released
    }

    /// As [`AdjRibOut::poll_update`]; `say` gives what this session makes of what is desired, or `None` where it
    /// cannot say it: the peer then holds nothing of it. The answer is kept for the session, or until
    /// [`Self::say_again`].
    pub fn poll_update_with(
        &mut self,
        context: &CodecContext,
        mut say: impl FnMut(AfiSafi, &D) -> Option<Route>,
        out: &mut BytesMut,
    ) -> bool {
        let written = self.poll_refresh_begin(context, out)
            || self.poll_withdrawal(context, out)
            || self.poll_announcement(context, &mut say, out)
            // A route that could not be said may have become a withdrawal.
            || self.poll_withdrawal(context, out)
            || self.poll_refresh_end(out)
            || self.poll_end_of_rib(out);
        self.note_flushed();
        written
    }

    /// `say` gives other answers from now on; what it answered otherwise before is told again.
    pub fn say_again(&mut self, mut say: impl FnMut(AfiSafi, &D) -> Option<Route>) {
        for table in &mut self.tables {
            let family = table.family;
            table.say_again(|desired| say(family, desired));
        }
        self.version += 1;
        self.note_flushed();
    }

    /// The number of the latest change that gives something to tell: a desired route, a session, a refresh. A
    /// receipt for all changes up to now is this number: it is done once [`Self::flushed_version`] has reached it and the bytes have left.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// All changes up to this one have been written by [`Self::poll_update`], or need not be: there is no session.
    pub const fn flushed_version(&self) -> u64 {
        self.flushed
    }

    /// Whether the peer was told everything, End-of-RIB apart.
    pub fn pending_empty(&self) -> bool {
        self.tables.iter().all(|table| table.pending() == 0)
    }

    /// How many announcements and withdrawals of `family` are still to be told.
    pub fn pending(&self, family: AfiSafi) -> usize {
        self.tables[family.place()].pending()
    }

    /// How many prefixes of `family` the peer is to hold.
    pub fn desired(&self, family: AfiSafi) -> usize {
        self.tables[family.place()].desired()
    }

    /// How many prefixes of `family` the peer was told in this session and not told away.
    pub fn sent(&self, family: AfiSafi) -> usize {
        self.tables[family.place()].sent()
    }

    /// Whether the End-of-RIB of `family` was told in this session.
    pub fn end_of_rib_sent(&self, family: AfiSafi) -> bool {
        self.session.is_some_and(|families| families.contains(family))
            && !self.end_of_rib_owed.contains(family)
    }

    /// Every desired route, IPv4 first, in no order of prefixes.
    pub fn iter(&self) -> impl Iterator<Item = Advertised<'_, D>> {
        self.tables.iter().flat_map(Table::iter)
    }

    fn table(&mut self, family: AfiSafi) -> &mut Table<D> {
        &mut self.tables[family.place()]
    }

    fn note_flushed(&mut self) {
        if self.pending_empty() {
            self.flushed = self.version;
        }
    }

    fn poll_refresh_begin(&mut self, context: &CodecContext, out: &mut BytesMut) -> bool {
        let Some(family) = self.refresh_owed.iter().next() else { return false };
        self.refresh_owed.remove(family);
        if !context.enhanced_refresh {
            return self.poll_refresh_begin(context, out);
        }
        self.refreshing.insert(family);
        RouteRefresh { family, subtype: RouteRefresh::BEGIN }.encode(out);
        true
    }

    fn poll_refresh_end(&mut self, out: &mut BytesMut) -> bool {
        let told = |family: &AfiSafi| self.tables[family.place()].pending() == 0;
        let Some(family) = self.refreshing.iter().find(told) else { return false };
        self.refreshing.remove(family);
        RouteRefresh { family, subtype: RouteRefresh::END }.encode(out);
        true
    }

    fn poll_withdrawal(&mut self, context: &CodecContext, out: &mut BytesMut) -> bool {
        self.tables.iter_mut().any(|table| pack::withdraw(table, context, out))
    }

    fn poll_announcement(
        &mut self,
        context: &CodecContext,
        say: &mut impl FnMut(AfiSafi, &D) -> Option<Route>,
        out: &mut BytesMut,
    ) -> bool {
        self.tables.iter_mut().any(|table| self.packer.announce(table, say, context, out))
    }

    fn poll_end_of_rib(&mut self, out: &mut BytesMut) -> bool {
        if !self.released {
            return false;
        }
        let Some(family) = self.end_of_rib_owed.iter().next() else { return false };
        self.end_of_rib_owed.remove(family);
        write_end_of_rib(family, out);
        true
    }
}
