//! What Secrets said last, for an agent that is restarted while the API server is away: in a file of root's, in memory only.
//!
//! Without it a session with a password could not be opened again, and its peer would drop the routes when the restart time
//! is over. A disk is no place for it: where the directory is not a tmpfs nothing is written.
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use k8s_openapi::ByteString;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::state_file;

/// The file's name, beside the admin socket.
const FILE: &str = "secrets";

/// The Secrets by name, each with its keys.
pub(super) type Contents = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// The file, where it may be.
#[derive(Debug)]
pub(super) struct Remembered {
    file: Option<PathBuf>,
}

impl Remembered {
    /// Beside the admin socket.
    pub(super) fn new(directory: &Path) -> Remembered {
        let in_memory = statfs(directory).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
        if !in_memory {
            tracing::info!(
                directory = %directory.display(),
                "not a tmpfs, so passwords from Secrets are not remembered over a restart"
            );
        }
        Remembered { file: in_memory.then(|| directory.join(FILE)) }
    }

    pub(super) const fn nowhere() -> Remembered {
        Remembered { file: None }
    }

    /// What an earlier process left.
    pub(super) fn load(&self) -> Contents {
        let Some(file) = &self.file else { return Contents::new() };
        let read = fs::read(file).and_then(|text| {
            serde_json::from_slice::<BTreeMap<String, BTreeMap<String, ByteString>>>(&text)
                .map_err(io::Error::other)
        });
        match read {
            Ok(secrets) => secrets
                .into_iter()
                .map(|(name, keys)| (name, keys.into_iter().map(|(key, value)| (key, value.0)).collect()))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::new(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "what Secrets said to an earlier process cannot be used");
                Contents::new()
            }
        }
    }

    /// Leaves it for the next process, as a whole or not at all.
    pub(super) fn save(&self, contents: &Contents) {
        let Some(file) = &self.file else { return };
        let bytes = |keys: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, ByteString> {
            keys.iter().map(|(key, value)| (key.clone(), ByteString(value.clone()))).collect()
        };
        let written: BTreeMap<&String, _> = contents.iter().map(|(name, keys)| (name, bytes(keys))).collect();
        let saved =
            state_file::replace_with(file, 0o600, |out| out.write_all(&serde_json::to_vec(&written)?));
        if let Err(error) = saved {
            tracing::warn!(file = %file.display(), %error, "passwords from Secrets cannot be remembered over a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn contents() -> Contents {
        [("tor".to_owned(), [("password".to_owned(), vec![0, 255, 7])].into())].into()
    }

    #[test]
    fn it_reads_what_it_wrote_and_only_its_owner_may() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let remembered = Remembered::new(directory.path());
        assert_eq!(remembered.load(), Contents::new());
        remembered.save(&contents());
        assert_eq!(Remembered::new(directory.path()).load(), contents());
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(directory.path().join(FILE), b"{\"tor\":").unwrap();
        assert_eq!(remembered.load(), Contents::new());
    }

    #[test]
    fn nothing_is_left_on_a_disk() {
        // The build's own directory is on one.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let remembered = Remembered::new(directory.path());
        remembered.save(&contents());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(remembered.load(), Contents::new());
    }
}
