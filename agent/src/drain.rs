//! Drain: traffic is moved away from this node before it is worked on. First the routes are marked with
//! GRACEFUL_SHUTDOWN (RFC 8326), so that the ToRs prefer any other way; after a wait they are withdrawn. The kernel's
//! paths stay: what is still on its way is delivered.
//!
//! A person asks for it with `plainroute drain`, or the Node's object does; it ends when nobody asks any more. A restart is
//! not an end of it: a file in `stateDir` remembers who asked.
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::state_file;

const FILE: &str = "drained";

/// How far the node is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainState {
    /// Not at all.
    #[default]
    Active,
    /// Its routes are marked as about to go.
    Draining,
    /// Its routes are withdrawn.
    Drained,
}

/// Who asks for a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AskedBy {
    /// A person, with `plainroute drain`.
    Command,
    /// The Node's object, by an annotation or a taint.
    Node,
}

impl AskedBy {
    const fn word(self) -> &'static str {
        match self {
            AskedBy::Command => "command",
            AskedBy::Node => "node",
        }
    }
}

/// The drain of this node. Owned by the agent's main task.
#[derive(Debug)]
pub struct Drain {
    file: PathBuf,
    asked: BTreeSet<AskedBy>,
    state: DrainState,
    withdraw_at: Option<Instant>,
}

impl Drain {
    /// As the process before this one left it.
    pub fn open(state_dir: &Path) -> Drain {
        let file = state_dir.join(FILE);
        let asked: BTreeSet<AskedBy> = match fs::read_to_string(&file) {
            // A file without a word is a command's, as it was when nobody else could ask.
            Ok(text) if !text.lines().any(|line| line == AskedBy::Node.word()) => [AskedBy::Command].into(),
            Ok(text) => {
                let by = [AskedBy::Command, AskedBy::Node];
                by.into_iter().filter(|by| text.lines().any(|line| line == by.word())).collect()
            }
            Err(_) => BTreeSet::new(),
        };
        let state = if asked.is_empty() { DrainState::Active } else { DrainState::Drained };
        Drain { file, asked, state, withdraw_at: None }
    }

    /// How far it is.
    pub fn state(&self) -> DrainState {
        self.state
    }

    /// Who asks for it.
    pub fn asked_by(&self) -> &BTreeSet<AskedBy> {
        &self.asked
    }

    /// Somebody asks for it; the routes are withdrawn after `wait`, or as somebody before wanted it.
    pub fn begin(&mut self, by: AskedBy, now: Instant, wait: Duration) -> io::Result<()> {
        let mut asked = self.asked.clone();
        if !asked.insert(by) {
            return Ok(());
        }
        self.remember(&asked)?;
        self.asked = asked;
        if self.state == DrainState::Active {
            self.state = DrainState::Draining;
            self.withdraw_at = Some(now + wait);
        }
        Ok(())
    }

    /// Takes back what was asked; it ends when nobody else asks.
    pub fn undo(&mut self, by: AskedBy) -> io::Result<()> {
        let mut asked = self.asked.clone();
        asked.remove(&by);
        self.remember(&asked)?;
        self.asked = asked;
        if self.asked.is_empty() {
            self.state = DrainState::Active;
            self.withdraw_at = None;
        }
        Ok(())
    }

    fn remember(&self, asked: &BTreeSet<AskedBy>) -> io::Result<()> {
        if asked.is_empty() {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let words: String = asked.iter().map(|by| format!("{}\n", by.word())).collect();
        state_file::replace(&self.file, words.as_bytes())
    }

    /// When [`Drain::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.withdraw_at
    }

    /// Time has passed: the wait may be over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.withdraw_at.take_if(|at| *at <= now).is_some() {
            self.state = DrainState::Drained;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AskedBy::*, *};

    #[test]
    fn a_drain_waits_then_withdraws_and_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("state");
        let (now, wait) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::open(&state_dir);
        assert_eq!(drain.state(), DrainState::Active);
        drain.begin(Command, now, wait).unwrap();
        assert_eq!((drain.state(), drain.poll_timeout()), (DrainState::Draining, Some(now + wait)));
        drain.handle_timeout(now + wait / 2);
        assert_eq!(drain.state(), DrainState::Draining);
        drain.handle_timeout(now + wait);
        assert_eq!((drain.state(), drain.poll_timeout()), (DrainState::Drained, None));

        assert_eq!(Drain::open(&state_dir).state(), DrainState::Drained);
        drain.begin(Command, now, wait).unwrap();
        assert_eq!(drain.state(), DrainState::Drained, "what is withdrawn is not announced once more");
        drain.undo(Command).unwrap();
        drain.undo(Command).unwrap();
        assert_eq!(Drain::open(&state_dir).state(), DrainState::Active);
    }

    #[test]
    fn it_ends_when_nobody_asks_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let (now, wait) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::open(directory.path());
        drain.begin(Node, now, wait).unwrap();
        drain.begin(Command, now + wait / 2, wait).unwrap();
        assert_eq!(drain.poll_timeout(), Some(now + wait), "the first one's wait holds");
        drain.handle_timeout(now + wait);
        drain.undo(Command).unwrap();
        assert_eq!(drain.state(), DrainState::Drained);
        let after = Drain::open(directory.path());
        assert_eq!((after.state(), after.asked_by()), (DrainState::Drained, &[Node].into()));
        drain.undo(Node).unwrap();
        assert_eq!(
            (drain.state(), Drain::open(directory.path()).state()),
            (DrainState::Active, DrainState::Active)
        );
        // As an earlier version left it.
        fs::write(directory.path().join(FILE), b"").unwrap();
        assert_eq!(Drain::open(directory.path()).asked_by(), &[Command].into());
    }

    #[test]
    fn a_drain_that_cannot_be_remembered_does_not_begin() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("file");
        fs::write(&state_dir, b"").unwrap();
        let mut drain = Drain::open(&state_dir);
        assert!(drain.begin(Command, Instant::now(), Duration::ZERO).is_err());
        assert_eq!((drain.state(), drain.asked_by().len()), (DrainState::Active, 0));
    }
}
