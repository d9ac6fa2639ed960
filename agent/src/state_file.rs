//! A file that is there as a whole or not at all: a torn one would say something else to the process that reads it next.
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Puts `content` in place of what the file has, and makes its directory where there is none.
pub(crate) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(file, 0o666, |out| out.write_all(content))
}

/// As [`replace`], for a file of this mode (less the umask) and of whatever `write` puts into it.
pub(crate) fn replace_with(
    file: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let fresh = file.with_extension("new");
    // One that a killed process left would keep its mode.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    write(&mut out)?;
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("made").join("state");
        replace(&file, b"one").unwrap();
        let failed = replace_with(&file, 0o600, |out| {
            out.write_all(b"half of tw")?;
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&file).unwrap(), b"one");
        // What the failure left does not decide the mode of the next.
        fs::set_permissions(file.with_extension("new"), fs::Permissions::from_mode(0o644)).unwrap();
        replace_with(&file, 0o600, |out| out.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
