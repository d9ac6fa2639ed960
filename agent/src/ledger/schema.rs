//! The tables of the ledger.
//!
//! Times are microseconds since 1970. Triggers keep whoever works on the file in good faith from changing what is written; whoever
//! does not is found by the chain.
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

use super::{LedgerError, row::GENESIS};

const VERSION: i64 = 1;
/// How long a transaction waits for another's.
const BUSY: Duration = Duration::from_secs(1);

const TABLES: &str = "
CREATE TABLE entry (
    number INTEGER PRIMARY KEY, time INTEGER NOT NULL, event TEXT NOT NULL, address TEXT NOT NULL, since INTEGER NOT NULL,
    node TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL, uid TEXT, pool TEXT, hash TEXT NOT NULL
) STRICT;
CREATE INDEX entry_of_address ON entry (address, number);
-- The last row that was cut: the chain goes on from it.
CREATE TABLE anchor (number INTEGER NOT NULL, time INTEGER, hash TEXT NOT NULL) STRICT;
CREATE TRIGGER entry_stays BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'the ledger is only appended to'); END;
CREATE TRIGGER entry_remains BEFORE DELETE ON entry WHEN OLD.number > (SELECT number FROM anchor)
    BEGIN SELECT RAISE(ABORT, 'the ledger is only cut at its old end'); END;
";

/// Where the chain begins.
pub(super) struct Anchor {
    pub(super) number: u64,
    /// When the last row that was cut had happened.
    pub(super) time: Option<i64>,
    pub(super) hash: String,
}

/// Opens the file to write, and makes it where there is none. It is its owner's alone.
pub(super) fn open(path: &Path) -> Result<Connection, LedgerError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|error| LedgerError::io(path, &error))?;
    }
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(|error| LedgerError::io(path, &error))?;
    let make = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // What is told to be written down survives a loss of power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if version(&transaction)? == 0 {
            transaction.execute_batch(TABLES)?;
            transaction.execute("INSERT INTO anchor VALUES (0, NULL, ?1)", [GENESIS])?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
        Ok(connection)
    };
    let connection = make().map_err(|error| LedgerError::sqlite(path, &error))?;
    checked(path, connection)
}

/// Opens the file to read; none where there is none yet.
pub(super) fn open_to_read(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    };
    let connection = open().map_err(|error| LedgerError::sqlite(path, &error))?;
    // The owner is about to make it.
    if version(&connection).map_err(|error| LedgerError::sqlite(path, &error))? == 0 {
        return Ok(None);
    }
    checked(path, connection).map(Some)
}

fn checked(path: &Path, connection: Connection) -> Result<Connection, LedgerError> {
    let found = version(&connection).map_err(|error| LedgerError::sqlite(path, &error))?;
    match found {
        VERSION => Ok(connection),
        _ => Err(LedgerError::Version { path: path.to_owned(), found, known: VERSION }),
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

pub(super) fn anchor(connection: &Connection) -> rusqlite::Result<Anchor> {
    connection.query_row("SELECT number, time, hash FROM anchor", [], |row| {
        let number: i64 = row.get(0)?;
        Ok(Anchor { number: number.cast_unsigned(), time: row.get(1)?, hash: row.get(2)? })
    })
}
