//! The journal's records: what a node did to its addresses, one JSON line each with a checksum. The file itself is its
//! keeper's; here are lines and what is wrong with them.
use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use plainroute_bgp::Prefix;
use plainroute_config::Cidr;
use serde::{Deserialize, Serialize};

use crate::{Holder, Kept, Slot};

/// The version of the format that this code writes and reads.
pub const VERSION: u32 = 1;

/// One step. A node's addresses are what all its records make of them, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Record {
    /// The first record: whose journal it is.
    Begun {
        /// [`VERSION`].
        version: u32,
        /// The node.
        node: String,
    },
    /// All blocks that the node had without this journal are in it now: what it does not say is not so.
    Whole,
    /// The block is this node's, with what was known of its addresses.
    Own(Box<Owned>),
    /// A Pod holds the addresses.
    Hold {
        /// One of each family at most.
        addresses: Vec<IpAddr>,
        /// The Pod.
        holder: Holder,
    },
    /// Nobody holds the address any more, nor is it kept or lent. It rests.
    Free {
        /// Which.
        address: IpAddr,
        /// Since when.
        at: Timestamp,
    },
    /// Nobody holds the address, but it is kept for its Pod's successor.
    Keep {
        /// Which.
        address: IpAddr,
        /// Since when.
        at: Timestamp,
    },
    /// The address is another node's for a while.
    Lend {
        /// Which.
        address: IpAddr,
        /// The node.
        node: String,
        /// The UID of its IPBlock.
        loan: String,
        /// For whom it is kept afterwards.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
        /// Since when.
        at: Timestamp,
    },
    /// A lent address came back.
    Return {
        /// Which.
        address: IpAddr,
        /// Since when.
        at: Timestamp,
    },
    /// The block is given up: from here on its deletion may be under way.
    Release {
        /// Which.
        cidr: Cidr,
    },
    /// The block's object is gone or another's, though this node did not give it up.
    Lost {
        /// Which.
        cidr: Cidr,
    },
    /// The block is no longer this node's.
    Gone {
        /// Which.
        cidr: Cidr,
    },
}

/// A block, as it became this node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// Its addresses.
    pub cidr: Cidr,
    /// The IPPool that it is of.
    pub pool: String,
    /// The UID of its object; empty where it comes from a file.
    pub uid: String,
    /// Its epoch.
    pub epoch: u32,
    /// The boot of the machine, by its ID, during which it was confirmed to be this node's.
    pub boot: String,
    /// The IPBlock that it is borrowed of, and the node of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<(String, String)>,
    /// The ordinal that was given out last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u16>,
    /// What its addresses are, those that are simply free left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<u16, Slot>,
}

impl Owned {
    pub(crate) fn prefix(&self) -> Prefix {
        self.cidr.prefix()
    }
}

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Its records.
    pub records: Vec<Record>,
    /// How many octets of the file are whole lines. Where the file is longer, it is to be cut to this before it is appended to.
    pub whole: usize,
    /// The line that a crash left unfinished, by number. It was never acknowledged to anybody.
    pub torn: Option<usize>,
}

/// A line that cannot be what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Corrupt {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

const HEAD: &str = "{\"crc\":\"";
const MIDDLE: &str = "\",\"record\":";

impl Record {
    /// The line, with its end.
    pub fn encode(&self) -> String {
        // Texts, numbers and times only: none of it fails to serialize.
        let record = serde_json::to_string(self).unwrap_or_default();
        let sum = crc32fast::hash(record.as_bytes());
        format!("{HEAD}{sum:08x}{MIDDLE}{record}}}\n")
    }

    /// From a line without its end.
    fn decode(line: &[u8]) -> Result<Record, String> {
        let text = std::str::from_utf8(line).map_err(|_| "is no UTF-8".to_owned())?;
        let form = || "has not the form {\"crc\":..,\"record\":..}".to_owned();
        let (sum, rest) =
            text.strip_prefix(HEAD).and_then(|rest| rest.split_once(MIDDLE)).ok_or_else(form)?;
        let record = rest.strip_suffix('}').ok_or_else(form)?;
        let right = format!("{:08x}", crc32fast::hash(record.as_bytes()));
        if sum != right {
            return Err(format!("has the checksum {sum}, its record {right}"));
        }
        serde_json::from_str(record).map_err(|error| format!("is no record: {error}"))
    }
}

impl Journal {
    /// Reads a journal. A last line without an end is what a crash leaves, and is cut; whatever else is wrong is an error, since
    /// nobody knows what the line said.
    pub fn decode(file: &[u8]) -> Result<Journal, Corrupt> {
        let mut journal = Journal { records: Vec::new(), whole: 0, torn: None };
        for (index, line) in file.split_inclusive(|octet| *octet == b'\n').enumerate() {
            let number = index + 1;
            let corrupt = |what: String| Corrupt { line: number, what };
            let Some(body) = line.strip_suffix(b"\n") else {
                // The end of a line may be damaged too. Then it was written whole, and is not to be lost.
                if line.split_last().is_some_and(|(_, body)| Record::decode(body).is_ok()) {
                    return Err(corrupt("has another octet where it should end".to_owned()));
                }
                journal.torn = Some(number);
                break;
            };
            journal.records.push(Record::decode(body).map_err(corrupt)?);
            journal.whole += line.len();
        }
        Ok(journal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> Vec<Record> {
        let at: Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
        let address: IpAddr = "10.20.0.17".parse().unwrap();
        let holder = Holder {
            namespace: "erp".to_owned(),
            name: "books-0".to_owned(),
            pod_uid: "u".to_owned(),
            container_id: "c".to_owned(),
            interface: "eth0".to_owned(),
            stateful_set: Some("books".to_owned()),
            since: at,
        };
        let kept = holder.kept(at);
        let cidr: Cidr = "10.20.0.16/28".parse().unwrap();
        let slots = BTreeMap::from([(1, Slot::Held(holder.clone())), (2, Slot::Resting(at))]);
        let (pool, uid, node) = ("erp".to_owned(), "v".to_owned(), "node-b".to_owned());
        let owned =
            Owned { cidr, pool, uid, epoch: 1, boot: "b".to_owned(), lender: None, last: Some(2), slots };
        vec![
            Record::Begun { version: VERSION, node: "node-a".to_owned() },
            Record::Whole,
            Record::Own(Box::new(owned)),
            Record::Hold { addresses: vec![address], holder },
            Record::Keep { address, at },
            Record::Lend { address, node, loan: "w".to_owned(), kept, at },
            Record::Return { address, at },
            Record::Free { address, at },
            Record::Lost { cidr },
            Record::Release { cidr },
            Record::Gone { cidr },
        ]
    }

    fn file() -> Vec<u8> {
        records().iter().map(Record::encode).collect::<String>().into_bytes()
    }

    #[test]
    fn what_is_written_is_read() {
        let journal = Journal::decode(&file()).unwrap();
        assert_eq!(journal, Journal { records: records(), whole: file().len(), torn: None });
        for line in String::from_utf8(file()).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON");
        }
    }

    #[test]
    fn an_unfinished_line_is_cut_and_said() {
        let (file, records) = (file(), records());
        for length in 0..file.len() {
            let whole = file[..length].iter().rposition(|octet| *octet == b'\n').map_or(0, |end| end + 1);
            let lines = file[..whole].split_inclusive(|octet| *octet == b'\n').count();
            let journal = Journal::decode(&file[..length]).unwrap();
            assert_eq!((journal.whole, &journal.records[..]), (whole, &records[..lines]), "{length}");
            assert_eq!(journal.torn, (whole < length).then_some(lines + 1), "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_octet_is_an_error_that_names_its_line(at in any::<prop::sample::Index>(), with in 1_u8..=255) {
            let mut file = file();
            let at = at.index(file.len());
            let line = file[..at].iter().filter(|octet| **octet == b'\n').count() + 1;
            file[at] ^= with;
            let corrupt = Journal::decode(&file).unwrap_err();
            prop_assert!(corrupt.line == line, "octet {} of line {}: {}", at, line, corrupt);
        }

        #[test]
        fn no_octets_make_it_panic(file in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Journal::decode(&file));
        }
    }
}
