//! Who held which address, when, on this node: for whoever has to answer for a source address long after the Pod is gone.
//!
//! Rows are only ever appended. Each carries the SHA-256 of itself and of the row before ([`Row`]), so a row that was changed, taken
//! out or put in is found, by its number ([`Reader::verify`]). [`Ledger`] writes and has one owner, [`keep`]; a [`Reader`] reads
//! beside it. Both work on `stateDir/ledger.sqlite`. Nothing waits for the ledger: what it cannot write down is tried again, and
//! said.
mod error;
mod given;
mod keep;
mod reader;
mod row;
mod schema;
mod view;
mod writer;

pub use error::LedgerError;
pub use given::Given;
pub(crate) use keep::holders;
pub use keep::{Kept, Settings, keep};
pub use reader::Reader;
pub use view::{BlockSays, Damage, HolderSource, HolderView, LedgerEvent, LedgerVerdict, Row, Who};
pub use writer::{Change, Holder, Ledger};

/// The file within `stateDir`.
pub const FILE: &str = "ledger.sqlite";
