//! Reads the ledger beside its writer: who held an address, the rows themselves, and whether they are as they were written.
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, ToSql};

use super::{
    LedgerError,
    row::{COLUMNS, GENESIS},
    schema,
    view::{Damage, HolderSource, HolderView, LedgerEvent, LedgerVerdict, Row},
};

/// The ledger, to be read. What is written meanwhile is seen by the next call.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// None where nothing was ever written.
    connection: Option<Connection>,
}

impl Reader {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Reader, LedgerError> {
        Ok(Reader { path: path.to_owned(), connection: schema::open_to_read(path)? })
    }

    /// Who had the address at that time: from `since` on, and until just before it was freed.
    pub fn who(&self, address: IpAddr, at: Timestamp) -> Result<Option<HolderView>, LedgerError> {
        let condition = "address = ?1 AND since <= ?2 AND CASE event WHEN 'freed' THEN time > ?2 \
             ELSE number = (SELECT max(number) FROM entry WHERE address = ?1) END ORDER BY number DESC LIMIT 1";
        let found = self.rows(condition, &[&address.to_string(), &at.as_microsecond()])?.pop();
        Ok(found.map(|row| HolderView {
            until: (row.event == LedgerEvent::Freed).then_some(row.time),
            namespace: row.namespace,
            pod: row.pod,
            node: row.node,
            uid: row.uid,
            pool: row.pool,
            since: Some(row.since),
            source: HolderSource::Ledger,
        }))
    }

    /// How far back it reaches: to the last row that was cut, or to the first one ever.
    pub fn known_since(&self) -> Result<Option<Timestamp>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let read = || -> rusqlite::Result<Option<i64>> {
            match schema::anchor(connection)?.time {
                Some(time) => Ok(Some(time)),
                None => connection.query_row(
                    "SELECT (SELECT time FROM entry ORDER BY number LIMIT 1)",
                    [],
                    |row| row.get(0),
                ),
            }
        };
        let micros = read().map_err(|error| self.failed(&error))?;
        micros
            .map(Timestamp::from_microsecond)
            .transpose()
            .map_err(|error| LedgerError::damaged(&self.path, error.to_string()))
    }

    /// Rows after that number that happened since then, at most so many, in order.
    pub fn export(&self, since: Timestamp, after: u64, most: usize) -> Result<Vec<Row>, LedgerError> {
        let condition = "number > ?1 AND time >= ?2 ORDER BY number LIMIT ?3";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.rows(condition, &[&after.cast_signed(), &since.as_microsecond(), &most])
    }

    /// Goes along the chain up to the first row that is not as it was written.
    pub fn verify(&self) -> Result<LedgerVerdict, LedgerError> {
        let mut verdict = LedgerVerdict { rows: 0, cut: 0, last: 0, hash: GENESIS.to_owned(), damaged: None };
        let Some(connection) = &self.connection else { return Ok(verdict) };
        let failed = |error| self.failed(&error);
        // One view of the file, whatever is written meanwhile.
        let view = connection.unchecked_transaction().map_err(failed)?;
        let anchor = schema::anchor(&view).map_err(failed)?;
        verdict = LedgerVerdict { cut: anchor.number, last: anchor.number, hash: anchor.hash, ..verdict };
        let query = format!("SELECT {COLUMNS} FROM entry ORDER BY number");
        let mut query = view.prepare(&query).map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let expected = verdict.last + 1;
            let number: i64 = row.get(0).map_err(failed)?;
            let number = number.cast_unsigned();
            let damage = |row, message: String| Some(Damage { row, message });
            if number != expected {
                verdict.damaged = damage(expected, format!("it is missing; the next one is {number}"));
                break;
            }
            match Row::read(row).map_err(failed)? {
                Err(message) => verdict.damaged = damage(number, message),
                Ok(row) if row.chained(&verdict.hash) != row.hash => {
                    let message = "its hash is not that of what it says after the row before it";
                    verdict.damaged = damage(number, message.to_owned());
                }
                Ok(row) => {
                    (verdict.last, verdict.hash) = (number, row.hash);
                    verdict.rows += 1;
                }
            }
            if verdict.damaged.is_some() {
                break;
            }
        }
        Ok(verdict)
    }

    fn rows(&self, condition: &str, values: &[&dyn ToSql]) -> Result<Vec<Row>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let failed = |error| self.failed(&error);
        let query = format!("SELECT {COLUMNS} FROM entry WHERE {condition}");
        let mut query = connection.prepare(&query).map_err(failed)?;
        let rows = query.query_map(values, Row::read).map_err(failed)?;
        rows.map(|row| row.map_err(failed)?.map_err(|why| LedgerError::damaged(&self.path, why))).collect()
    }

    fn failed(&self, error: &rusqlite::Error) -> LedgerError {
        LedgerError::sqlite(&self.path, error)
    }
}
