//! A row as it is hashed, written and read back.
use jiff::Timestamp;
use ring::digest;

use super::view::{LedgerEvent, Row};

/// What the first row ever goes on from.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The columns that [`Row::read`] wants, in its order.
pub(super) const COLUMNS: &str = "number, time, event, address, since, node, namespace, pod, uid, pool, hash";

impl LedgerEvent {
    pub(super) fn word(self) -> &'static str {
        match self {
            LedgerEvent::Held => "held",
            LedgerEvent::Kept => "kept",
            LedgerEvent::Freed => "freed",
        }
    }

    fn named(word: &str) -> Option<LedgerEvent> {
        [LedgerEvent::Held, LedgerEvent::Kept, LedgerEvent::Freed]
            .into_iter()
            .find(|event| event.word() == word)
    }
}

impl Row {
    /// The hash of this row after that of the row before, both in hexadecimal: SHA-256 over that text, then number, time and
    /// since (64 bits, big-endian; microseconds since 1970), then the texts, each with its length before it (64 bits).
    pub(super) fn chained(&self, previous: &str) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(previous.as_bytes());
        let numbers = [self.number.to_be_bytes(), micros(self.time), micros(self.since)];
        numbers.iter().for_each(|number| context.update(number));
        let address = self.address.to_string();
        let texts = [
            Some(self.event.word()),
            Some(address.as_str()),
            Some(self.node.as_str()),
            Some(self.namespace.as_str()),
            Some(self.pod.as_str()),
            self.uid.as_deref(),
            self.pool.as_deref(),
        ];
        for text in texts {
            // A text that there is not is no empty one.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(text.unwrap_or_default().as_bytes());
        }
        context.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
    }

    /// Reads [`COLUMNS`]; the text says what in them makes no sense.
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Row, String>> {
        let number: i64 = row.get(0)?;
        Ok(Self::fields(row)
            .map_err(|error| match error {
                Unreadable::Column(error) => error.to_string(),
                Unreadable::Value(message) => message,
            })
            .map(|parsed| Row { number: number.cast_unsigned(), ..parsed }))
    }

    fn fields(row: &rusqlite::Row<'_>) -> Result<Row, Unreadable> {
        let time = |place| -> Result<Timestamp, Unreadable> {
            let micros: i64 = row.get(place)?;
            Timestamp::from_microsecond(micros).map_err(|error| Unreadable::Value(error.to_string()))
        };
        let (event, address): (String, String) = (row.get(2)?, row.get(3)?);
        Ok(Row {
            number: 0,
            time: time(1)?,
            event: LedgerEvent::named(&event)
                .ok_or_else(|| Unreadable::Value(format!("`{event}` is no event")))?,
            address: address.parse().map_err(|_| Unreadable::Value(format!("`{address}` is no address")))?,
            since: time(4)?,
            node: row.get(5)?,
            namespace: row.get(6)?,
            pod: row.get(7)?,
            uid: row.get(8)?,
            pool: row.get(9)?,
            hash: row.get(10)?,
        })
    }
}

enum Unreadable {
    Column(rusqlite::Error),
    Value(String),
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Unreadable {
        Unreadable::Column(error)
    }
}

fn micros(time: Timestamp) -> [u8; 8] {
    time.as_microsecond().to_be_bytes()
}
