//! The one writer. Each call is one transaction: written and durable as a whole, or not at all.
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{
    LedgerError,
    row::COLUMNS,
    schema,
    view::{LedgerEvent, Row},
};

/// The Pod that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID, where it has one.
    pub uid: Option<String>,
    /// The pool by which it has the address, where there is one.
    pub pool: Option<String>,
}

impl Holder {
    /// Whether it is the same Pod; another pool makes no other holder.
    pub fn is_same_pod(&self, other: &Holder) -> bool {
        (&self.namespace, &self.pod, &self.uid) == (&other.namespace, &other.pod, &other.uid)
    }
}

/// What is to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The Pod has the address. Where it is written down already, nothing is; where another Pod had it, that ends.
    Held {
        /// Which address.
        address: IpAddr,
        /// Who.
        holder: Holder,
        /// Since when.
        from: Timestamp,
    },
    /// Nobody has the address any more. Where nobody had it, nothing is written down.
    Freed {
        /// Which address.
        address: IpAddr,
        /// Until when.
        at: Timestamp,
    },
}

/// The ledger, to be written. There is one of a file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    node: String,
    connection: Connection,
    state: State,
}

/// What the file says as a whole.
#[derive(Debug)]
struct State {
    last: u64,
    hash: String,
    held: BTreeMap<IpAddr, (Holder, Timestamp)>,
}

impl Ledger {
    /// Opens the ledger of this node, and begins one where there is none.
    pub fn open(path: &Path, node: &str) -> Result<Ledger, LedgerError> {
        let connection = schema::open(path)?;
        let state = State::read(path, &connection)?;
        Ok(Ledger { path: path.to_owned(), node: node.to_owned(), connection, state })
    }

    /// Who has which address, as far as it is written down.
    pub fn held_now(&self) -> &BTreeMap<IpAddr, (Holder, Timestamp)> {
        &self.state.held
    }

    /// Writes down that the Pod has the address since `from`.
    pub fn held(&mut self, address: IpAddr, holder: Holder, from: Timestamp) -> Result<(), LedgerError> {
        self.record(&[Change::Held { address, holder, from }])
    }

    /// Writes down that nobody has the address since `at`.
    pub fn freed(&mut self, address: IpAddr, at: Timestamp) -> Result<(), LedgerError> {
        self.record(&[Change::Freed { address, at }])
    }

    /// Writes all of it down.
    pub fn record(&mut self, changes: &[Change]) -> Result<(), LedgerError> {
        let mut next = self.state.next();
        let mut rows = Vec::new();
        for change in changes {
            match change {
                Change::Held { address, holder, from } => {
                    let from = in_micros(*from);
                    match self.state.holder(&next, *address) {
                        Some((other, _)) if other.is_same_pod(holder) => continue,
                        Some(_) => rows.extend(self.state.free(&mut next, *address, from)),
                        None => {}
                    }
                    next.touched.insert(*address, Some((holder.clone(), from)));
                    rows.push((LedgerEvent::Held, from, *address, holder.clone(), from));
                }
                Change::Freed { address, at } => rows.extend(self.state.free(&mut next, *address, *at)),
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = rows.into_iter().map(|row| next.append(&self.node, row)).collect();
        self.commit(next, &rows, None)
    }

    /// When the oldest row happened.
    pub fn oldest(&self) -> Result<Option<Timestamp>, LedgerError> {
        let query = "SELECT time FROM entry ORDER BY number LIMIT 1";
        let micros = self.connection.query_row(query, [], |row| row.get(0)).optional();
        let micros: Option<i64> = micros.map_err(|error| LedgerError::sqlite(&self.path, &error))?;
        micros
            .map(Timestamp::from_microsecond)
            .transpose()
            .map_err(|error| LedgerError::damaged(&self.path, error.to_string()))
    }

    /// Cuts rows that happened before, at the old end only. What is still held by them is written down anew before.
    pub fn cut(&mut self, before: Timestamp, now: Timestamp) -> Result<u64, LedgerError> {
        let failed = |error| LedgerError::sqlite(&self.path, &error);
        let first_to_stay: Option<i64> = self
            .connection
            .query_row(
                "SELECT number FROM entry WHERE time >= ?1 ORDER BY number LIMIT 1",
                [before.as_microsecond()],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        let last_to_go = first_to_stay.map_or(self.state.last, |number| number.cast_unsigned() - 1);
        let anchor = schema::anchor(&self.connection).map_err(failed)?;
        if last_to_go <= anchor.number {
            return Ok(0);
        }
        let mut next = self.state.next();
        let mut rows = Vec::new();
        for (address, (holder, since)) in &self.state.held {
            let written: i64 = self
                .connection
                .query_row("SELECT max(number) FROM entry WHERE address = ?1", [address.to_string()], |row| {
                    row.get(0)
                })
                .map_err(failed)?;
            if written.cast_unsigned() <= last_to_go {
                rows.push(
                    next.append(&self.node, (LedgerEvent::Kept, now, *address, holder.clone(), *since)),
                );
            }
        }
        self.commit(next, &rows, Some(last_to_go))?;
        Ok(last_to_go - anchor.number)
    }

    fn commit(&mut self, next: Next, rows: &[Row], cut: Option<u64>) -> Result<(), LedgerError> {
        let wrote = self.state.last;
        let found = self.write(wrote, rows, cut).map_err(|error| LedgerError::sqlite(&self.path, &error))?;
        if found != wrote {
            return Err(LedgerError::NotAlone { path: self.path.clone(), found, wrote });
        }
        self.state.apply(next);
        Ok(())
    }

    /// Gives the last row before these; nothing was written where that is not `after`.
    fn write(&mut self, after: u64, rows: &[Row], cut: Option<u64>) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = last_number(&transaction)?;
        if found != after {
            return Ok(found);
        }
        {
            let values = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11";
            let mut insert =
                transaction.prepare(&format!("INSERT INTO entry ({COLUMNS}) VALUES ({values})"))?;
            for row in rows {
                insert.execute(params![
                    row.number.cast_signed(),
                    row.time.as_microsecond(),
                    row.event.word(),
                    row.address.to_string(),
                    row.since.as_microsecond(),
                    row.node,
                    row.namespace,
                    row.pod,
                    row.uid,
                    row.pool,
                    row.hash,
                ])?;
            }
        }
        if let Some(cut) = cut {
            let cut = cut.cast_signed();
            transaction.execute(
                "UPDATE anchor SET (number, time, hash) = (SELECT number, time, hash FROM entry WHERE number = ?1)",
                [cut],
            )?;
            transaction.execute("DELETE FROM entry WHERE number <= ?1", [cut])?;
        }
        transaction.commit()?;
        Ok(found)
    }
}

/// What the file says next, once that is written.
struct Next {
    last: u64,
    hash: String,
    /// Who has an address of which something is written.
    touched: BTreeMap<IpAddr, Option<(Holder, Timestamp)>>,
}

/// What a row is made of: the event, its time, the address, its holder, and since when.
type Draft = (LedgerEvent, Timestamp, IpAddr, Holder, Timestamp);

impl State {
    fn read(path: &Path, connection: &Connection) -> Result<State, LedgerError> {
        let failed = |error| LedgerError::sqlite(path, &error);
        let anchor = schema::anchor(connection).map_err(failed)?;
        let last = last_number(connection).map_err(failed)?;
        let hash = match last {
            _ if last == anchor.number => anchor.hash,
            _ => connection
                .query_row("SELECT hash FROM entry WHERE number = ?1", [last.cast_signed()], |row| row.get(0))
                .map_err(failed)?,
        };
        // The last row of an address says whether somebody has it.
        let query = format!(
            "SELECT {COLUMNS} FROM entry WHERE number IN (SELECT max(number) FROM entry GROUP BY address) AND event != 'freed'"
        );
        let mut query = connection.prepare(&query).map_err(failed)?;
        let mut held = BTreeMap::new();
        for row in query.query_map([], Row::read).map_err(failed)? {
            let row = row.map_err(failed)?.map_err(|why| LedgerError::damaged(path, why))?;
            let Row { address, since, namespace, pod, uid, pool, .. } = row;
            held.insert(address, (Holder { namespace, pod, uid, pool }, since));
        }
        Ok(State { last, hash, held })
    }

    fn next(&self) -> Next {
        Next { last: self.last, hash: self.hash.clone(), touched: BTreeMap::new() }
    }

    fn apply(&mut self, next: Next) {
        (self.last, self.hash) = (next.last, next.hash);
        for (address, holder) in next.touched {
            match holder {
                Some(holder) => drop(self.held.insert(address, holder)),
                None => drop(self.held.remove(&address)),
            }
        }
    }

    fn holder<'a>(&'a self, next: &'a Next, address: IpAddr) -> Option<&'a (Holder, Timestamp)> {
        match next.touched.get(&address) {
            Some(touched) => touched.as_ref(),
            None => self.held.get(&address),
        }
    }

    fn free(&self, next: &mut Next, address: IpAddr, at: Timestamp) -> Option<Draft> {
        let (holder, since) = self.holder(next, address)?.clone();
        next.touched.insert(address, None);
        // A clock that was set back makes no time that ends before it began.
        Some((LedgerEvent::Freed, in_micros(at).max(since), address, holder, since))
    }
}

impl Next {
    fn append(&mut self, node: &str, (event, time, address, holder, since): Draft) -> Row {
        let Holder { namespace, pod, uid, pool } = holder;
        let (number, node) = (self.last + 1, node.to_owned());
        let mut row =
            Row { number, time, event, address, since, node, namespace, pod, uid, pool, hash: String::new() };
        row.hash = row.chained(&self.hash);
        (self.last, self.hash) = (number, row.hash.clone());
        row
    }
}

fn last_number(connection: &Connection) -> rusqlite::Result<u64> {
    let query = "SELECT coalesce((SELECT max(number) FROM entry), (SELECT number FROM anchor))";
    connection.query_row(query, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// As exact as it is written down.
fn in_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}
