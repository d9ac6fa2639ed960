//! Whether this process follows one whose forwarding state still stands: what the R and F bits of graceful restart
//! (RFC 4724 section 3) are set from.
//!
//! A file in `stateDir` names the boot and the network namespace in which the last process ran. Same boot and same
//! namespace: the kernel's routes are still there. After a reboot they are not, and claiming so would blackhole.
use std::{fs, io, path::Path};

use crate::state_file;

const FILE: &str = "incarnation";

/// What is known of the process before this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// There was one.
    pub restarted: bool,
    /// Its routes in the kernel were kept.
    pub forwarding_preserved: bool,
}

/// Reads what the last process left in `state_dir` and leaves the same for the next one.
pub fn take_over(state_dir: &Path) -> io::Result<Incarnation> {
    let here = format!("{}\n{}\n", boot_id()?, fs::read_link("/proc/self/ns/net")?.display());
    take_over_as(state_dir, &here)
}

fn take_over_as(state_dir: &Path, here: &str) -> io::Result<Incarnation> {
    let path = state_dir.join(FILE);
    let before = match fs::read_to_string(&path) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if before.as_deref() != Some(here) {
        state_file::replace(&path, here.as_bytes())?;
    }
    Ok(Incarnation { restarted: before.is_some(), forwarding_preserved: before.as_deref() == Some(here) })
}

/// What tells this boot from every other.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_preserved_by_a_restart_but_not_by_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = take_over_as(&state, "boot-1\nnet:[1]\n").unwrap();
        assert_eq!(first, Incarnation { restarted: false, forwarding_preserved: false });
        let again = take_over_as(&state, "boot-1\nnet:[1]\n").unwrap();
        assert_eq!(again, Incarnation { restarted: true, forwarding_preserved: true });
        let rebooted = take_over_as(&state, "boot-2\nnet:[1]\n").unwrap();
        assert_eq!(rebooted, Incarnation { restarted: true, forwarding_preserved: false });
        let settled = take_over_as(&state, "boot-2\nnet:[1]\n").unwrap();
        assert_eq!(settled, Incarnation { restarted: true, forwarding_preserved: true });
    }

    #[test]
    fn this_machine_has_a_boot_id() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
