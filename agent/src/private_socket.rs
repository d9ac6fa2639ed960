//! A Unix socket that nobody but its owner, root, can ever open.
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Somebody answers on it.
    #[error("somebody answers on {}", .0.display())]
    InUse(PathBuf),
    /// It cannot be made.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Binds the socket, mode 0600, in the place of one that nobody answers on any more.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let fail = |error| BindError::Io { path: path.to_owned(), error };
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(fail)?;
    }
    // Made under another name and moved into place, so that nobody but root can ever open it.
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    let listener = UnixListener::bind(&fresh).map_err(fail)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    fs::rename(&fresh, path).map_err(fail)?;
    Ok(listener)
}
