//! Why the ledger cannot be written or read, and what to do about it.
use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// Why the ledger cannot be written or read. None of it stops the agent.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Somebody else works on it.
    #[error("the ledger {} is locked by another process; end that one, the agent goes on by itself", .0.display())]
    Locked(PathBuf),
    /// What is in the file is no ledger, or is one no more.
    #[error(
        "the ledger {} is damaged ({reason}); move it away together with its -wal and -shm files and keep it for whoever audits: \
         the agent then begins a new one", path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by another version of the agent.
    #[error("the ledger {} has version {found}; this agent knows version {known}", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The version that is known.
        known: i64,
    },
    /// It grew under the agent's hands.
    #[error("the ledger {} has {found} as its last row, and the agent wrote {wrote}: somebody else writes it too", path.display())]
    NotAlone {
        /// Which.
        path: PathBuf,
        /// The last row in the file.
        found: u64,
        /// The last row that the agent knows of.
        wrote: u64,
    },
    /// The disk is full, the directory is read-only and the like.
    #[error("the ledger {}: {reason}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl LedgerError {
    pub(super) fn sqlite(path: &Path, error: &rusqlite::Error) -> LedgerError {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::Locked(path),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                LedgerError::Damaged { path, reason: error.to_string() }
            }
            _ => LedgerError::Io { path, reason: error.to_string() },
        }
    }

    pub(super) fn io(path: &Path, error: &io::Error) -> LedgerError {
        LedgerError::Io { path: path.to_owned(), reason: error.to_string() }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> LedgerError {
        LedgerError::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
