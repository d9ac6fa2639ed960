//! The journal on disk, `stateDir/ipam/journal`: what is in it has happened, whoever dies next.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use plainroute_blocks::{Corrupt, Journal, Record};
use tracing::warn;

use crate::state_file;

/// Below `stateDir`.
const FILE: &str = "ipam/journal";
/// It names Pods: nobody's but root's.
const MODE: u32 = 0o600;
/// A journal is written anew, shorter, when it has grown by this many octets since it last was.
const GROWTH: u64 = 1024 * 1024;

/// Why there is no journal to go on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It says what nobody can have written.
    #[error("{}: {error}; a line is missing or damaged, so it is not known which addresses are held. \
             Move the file away once the node has no Pods, and the agent begins a new one", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where.
        error: String,
    },
}

/// The open journal of one node. Nobody else has it open.
pub(super) struct JournalFile {
    path: PathBuf,
    file: File,
    length: u64,
    /// How long it was when it was last written anew.
    base: u64,
}

impl JournalFile {
    /// Opens what an earlier process left, and reads it. A last line that it did not finish was told to nobody, and is cut.
    pub(super) fn open(state_dir: &Path) -> Result<(JournalFile, Vec<Record>), JournalError> {
        let path = state_dir.join(FILE);
        let fail = |error| JournalError::Io { path: path.clone(), error };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(fail)?;
        }
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            content => content.map_err(fail)?,
        };
        let read = Journal::decode(&content);
        let Journal { records, whole, torn } = read.map_err(|error: Corrupt| JournalError::Damaged {
            path: path.clone(),
            error: error.to_string(),
        })?;
        let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&path).map_err(fail)?;
        let length = u64::try_from(whole).unwrap_or(u64::MAX);
        if let Some(line) = torn {
            warn!(path = %path.display(), line, "the last line was not finished before a crash; it is cut");
            file.set_len(length).and_then(|()| file.sync_all()).map_err(fail)?;
        }
        sync_directory(&path).map_err(fail)?;
        Ok((JournalFile { path, file, length, base: length }, records))
    }

    /// What the records say together is wrong, by this account.
    pub(super) fn damaged(&self, error: impl ToString) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), error: error.to_string() }
    }

    /// Appends records, and returns once they are on the disk.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let lines: String = records.iter().map(Record::encode).collect();
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| JournalError::Io { path: self.path.clone(), error })?;
        self.length += u64::try_from(lines.len()).unwrap_or_default();
        Ok(())
    }

    /// Whether it is worth its while to write it anew.
    pub(super) fn has_grown(&self) -> bool {
        self.length.saturating_sub(self.base) > GROWTH
    }

    /// Puts these records, which say the same, in place of all.
    pub(super) fn replace(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let fail = |error| JournalError::Io { path: self.path.clone(), error };
        let lines: String = records.iter().map(Record::encode).collect();
        let write = |out: &mut File| out.write_all(lines.as_bytes()).and_then(|()| out.sync_all());
        state_file::replace_with(&self.path, MODE, write).map_err(fail)?;
        sync_directory(&self.path).map_err(fail)?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(fail)?;
        self.length = u64::try_from(lines.len()).unwrap_or_default();
        self.base = self.length;
        Ok(())
    }
}

/// A new name is there after a loss of power only once its directory is on the disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Record {
        Record::Begun { version: plainroute_blocks::VERSION, node: "node-a".to_owned() }
    }

    fn free(last: u8) -> Record {
        Record::Free { address: [10, 20, 0, last].into(), at: jiff::Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn what_is_appended_is_there_after_a_crash_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, records) = JournalFile::open(dir.path()).unwrap();
        assert_eq!(records, []);
        journal.append(&[begun()]).unwrap();
        journal.append(&[free(1), free(2)]).unwrap();
        drop(journal);
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &free(3).encode().as_bytes()[..20]].concat()).unwrap();
        let (mut journal, records) = JournalFile::open(dir.path()).unwrap();
        assert_eq!(records, [begun(), free(1), free(2)]);
        // What is appended next begins a line of its own.
        journal.append(&[free(4)]).unwrap();
        let (_, records) = JournalFile::open(dir.path()).unwrap();
        assert_eq!(records, [begun(), free(1), free(2), free(4)]);
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = JournalFile::open(dir.path()).unwrap();
        journal.append(&[begun(), free(1), free(2)]).unwrap();
        let path = dir.path().join(FILE);
        let mut content = fs::read(&path).unwrap();
        let second = content.iter().position(|octet| *octet == b'\n').unwrap() + 20;
        content[second] ^= 1;
        fs::write(&path, &content).unwrap();
        let error = JournalFile::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("ipam/journal: line 2: "), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }

    #[test]
    fn it_is_written_anew_when_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = JournalFile::open(dir.path()).unwrap();
        journal.append(&[begun()]).unwrap();
        while !journal.has_grown() {
            journal.append(&vec![free(1); 1000]).unwrap();
        }
        journal.replace(&[begun(), free(1)]).unwrap();
        assert!(!journal.has_grown());
        journal.append(&[free(2)]).unwrap();
        let (_, records) = JournalFile::open(dir.path()).unwrap();
        assert_eq!(records, [begun(), free(1), free(2)]);
    }
}
