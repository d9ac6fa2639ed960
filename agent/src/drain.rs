//! Drain: traffic is moved away from this node before it is worked on. First the routes are marked with
//! GRACEFUL_SHUTDOWN (RFC 8326), so that the ToRs prefer any other way; after a wait they are withdrawn. The kernel's
//! paths stay: what is still on its way is delivered.
//!
//! A restart is not an end of the drain: a file in `stateDir` remembers it.
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

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

/// The drain of this node. Owned by the agent's main task.
#[derive(Debug)]
pub struct Drain {
    file: PathBuf,
    state: DrainState,
    withdraw_at: Option<Instant>,
}

impl Drain {
    /// As the process before this one left it.
    pub fn open(state_dir: &Path) -> Drain {
        let file = state_dir.join(FILE);
        let state = if file.exists() { DrainState::Drained } else { DrainState::Active };
        Drain { file, state, withdraw_at: None }
    }

    /// How far it is.
    pub fn state(&self) -> DrainState {
        self.state
    }

    /// Begins it; the routes are withdrawn after `wait`. Does nothing where it is done already.
    pub fn begin(&mut self, now: Instant, wait: Duration) -> io::Result<()> {
        if self.state == DrainState::Drained {
            return Ok(());
        }
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.file, b"")?;
        self.state = DrainState::Draining;
        self.withdraw_at = Some(now + wait);
        Ok(())
    }

    /// Takes it back.
    pub fn undo(&mut self) -> io::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.state = DrainState::Active;
        self.withdraw_at = None;
        Ok(())
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
    use super::*;

    #[test]
    fn a_drain_waits_then_withdraws_and_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("state");
        let (now, wait) = (Instant::now(), Duration::from_secs(10));
        let mut drain = Drain::open(&state_dir);
        assert_eq!(drain.state(), DrainState::Active);
        drain.begin(now, wait).unwrap();
        assert_eq!((drain.state(), drain.poll_timeout()), (DrainState::Draining, Some(now + wait)));
        drain.handle_timeout(now + wait / 2);
        assert_eq!(drain.state(), DrainState::Draining);
        drain.handle_timeout(now + wait);
        assert_eq!((drain.state(), drain.poll_timeout()), (DrainState::Drained, None));

        assert_eq!(Drain::open(&state_dir).state(), DrainState::Drained);
        drain.begin(now, wait).unwrap();
        assert_eq!(drain.state(), DrainState::Drained, "what is withdrawn is not announced once more");
        drain.undo().unwrap();
        drain.undo().unwrap();
        assert_eq!(Drain::open(&state_dir).state(), DrainState::Active);
    }

    #[test]
    fn a_drain_that_cannot_be_remembered_does_not_begin() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("file");
        fs::write(&state_dir, b"").unwrap();
        let mut drain = Drain::open(&state_dir);
        assert!(drain.begin(Instant::now(), Duration::ZERO).is_err());
        assert_eq!(drain.state(), DrainState::Active);
    }
}
