//! Puts this program into a node's directory of CNI plugins. The image has no shell that could.
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// What the network configuration calls it: the value of `ipam.type`.
pub const NAME: &str = "plainroute-ipam";

/// Copies the running program into the directory: there as a whole or as it was, also while the old one runs.
pub fn into(directory: &Path) -> io::Result<PathBuf> {
    let (file, fresh) = (directory.join(NAME), directory.join(".plainroute-ipam.new"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&fresh)?;
    io::copy(&mut File::open("/proc/self/exe")?, &mut out)?;
    out.sync_all()?;
    fs::rename(&fresh, &file)?;
    Ok(file)
}
