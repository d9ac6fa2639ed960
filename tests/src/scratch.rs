//! Names and directories of a test's own that are found again when the test was killed before it could remove them.
//!
//! They carry our process id and a counter: parallel tests never meet, and what bears the number of a process that is no
//! more belongs to nobody.

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub(crate) const PREFIX: &str = "prt";

/// A name that no other test has, nor the same test again. `label` is for the reader.
pub(crate) fn unique_name(label: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}-{}-{number}-{label}", std::process::id())
}

/// Whether a name is (or begins with) a [`unique_name`] of a process that is no more.
pub(crate) fn is_stale(name: &str) -> bool {
    let mut words = name.split('-');
    let maker = (words.next() == Some(PREFIX)).then(|| words.next()).flatten();
    maker
        .and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// A directory that is removed with its value; the first call of a process removes those that killed ones left.
pub fn directory(label: &str) -> Result<TempDir> {
    static SWEEP: Once = Once::new();
    let top = std::env::temp_dir();
    SWEEP.call_once(|| sweep(&top));
    tempfile::Builder::new()
        .prefix(&format!("{}-", unique_name(label)))
        .tempdir_in(&top)
        .with_context(|| format!("make a directory in {}", top.display()))
}

fn sweep(top: &Path) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_stale) {
            // Another process may sweep at the same time: that it is gone already is no error.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_told_from_what_the_living_use() {
        let mut short_lived = std::process::Command::new("true").spawn().unwrap();
        let pid = short_lived.id();
        short_lived.wait().unwrap();
        assert!(is_stale(&format!("prt-{pid}-0-x")) && is_stale(&format!("prt-{pid}-3-x-Ab12")));
        for other in [unique_name("x"), "prt-frr-Ab12".into(), format!("other-{pid}-0-x"), "prt".into()] {
            assert!(!is_stale(&other), "{other}");
        }
    }

    #[test]
    fn directories_of_the_dead_are_swept_with_what_is_in_them() {
        let top = tempfile::tempdir().unwrap();
        let mut short_lived = std::process::Command::new("true").spawn().unwrap();
        let stale = top.path().join(format!("prt-{}-0-stale-Ab12", short_lived.id()));
        short_lived.wait().unwrap();
        let living = top.path().join(unique_name("living"));
        fs::create_dir_all(stale.join("below")).unwrap();
        fs::create_dir_all(&living).unwrap();
        sweep(top.path());
        assert!(!stale.exists() && living.exists());
    }
}
