//! Drives sessions by a recording, and holds what comes out against its digests.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Corrupt, End, Input, Reader, Record,
    tape::{apply, outcome},
};
use crate::session::{Action, Event, Session};

/// One input replayed.
#[derive(Debug)]
pub struct Step {
    /// The octet of the recording where its record begins.
    pub offset: usize,
    /// Which of the recording's sessions.
    pub session: u64,
    /// The peer.
    pub peer: String,
    /// When, since the recording began.
    pub at: Duration,
    /// What the session took in.
    pub input: Input,
    /// What it asked for.
    pub actions: Vec<Action>,
    /// What it told.
    pub events: Vec<Event>,
    /// Whether that is what came out when it was recorded.
    pub same: bool,
}

/// A replay under way, with the sessions as they stand.
#[derive(Debug)]
pub struct Replay {
    reader: Reader,
    /// The beginning of the virtual clock. Any will do: only differences count.
    origin: Instant,
    sessions: BTreeMap<u64, (String, Session)>,
}

impl Replay {
    /// Begins with the octets of a recording.
    pub fn new(octets: Bytes, origin: Instant) -> Result<Replay, Corrupt> {
        Ok(Replay { reader: Reader::new(octets)?, origin, sessions: BTreeMap::new() })
    }

    /// The next input, carried out; or how the recording ends.
    pub fn poll(&mut self) -> Result<Result<Step, End>, Corrupt> {
        let (offset, Record { session: number, peer, at, input, digest }) = match self.reader.poll()? {
            Ok(record) => record,
            Err(end) => return Ok(Err(end)),
        };
        // A recording that begins within a session's life, or times beyond all clocks, are none of ours.
        let now = self.origin.checked_add(at).ok_or(Corrupt::Record(offset))?;
        if let Input::New(config) = &input {
            self.sessions.insert(number, (peer.clone(), Session::new((**config).clone())));
        }
        let (_, session) = self.sessions.get_mut(&number).ok_or(Corrupt::Record(offset))?;
        let answer = apply(session, now, input.clone()).map_or(0, |id| id.0);
        let (actions, events, got) = outcome(session, answer);
        Ok(Ok(Step { offset, session: number, peer, at, input, actions, events, same: got == digest }))
    }

    /// The sessions as the recording left them so far, with their peers, in the order in which they were made.
    pub fn sessions(&self) -> impl Iterator<Item = (&str, &Session)> {
        self.sessions.values().map(|(peer, session)| (peer.as_str(), session))
    }
}
