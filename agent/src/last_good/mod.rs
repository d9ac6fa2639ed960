//! What the API server said last, in `stateDir`: an agent that starts while the API server is away advertises by it.
//!
//! Owner of the file. Inputs: what the main task knows ([`Kept`]) and the marks of the watches. Output: the file, written
//! some seconds after a change and when the agent ends, as a whole or not at all; its time of modification tells until when it
//! was known to be true. When [`keep`] is cancelled the file stays as it is.
mod file;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

pub use file::{FILE, Kept, load};

use crate::source::kubernetes::Marks;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(2);
/// How often the time is renewed while nothing changes.
const RENEW: Duration = Duration::from_secs(60);

/// What the main task knows of the API server.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// All of it; `None` before the API server has answered in full.
    pub kept: Option<Arc<Kept>>,
    /// Whether the API server is being heard.
    pub heard: bool,
}

/// Keeps the file in step until nobody tells any more; what was told last is in it then.
pub async fn keep(
    state_dir: PathBuf,
    node: String,
    mut told: watch::Receiver<Told>,
    marks: watch::Receiver<Marks>,
) {
    let mut trouble = None;
    let mut written: Option<Arc<Kept>> = None;
    let mut confirmed = None;
    let mut renew_at = Instant::now() + RENEW;
    let mut over = false;
    while !over {
        tokio::select! {
            changed = told.changed() => {
                over = changed.is_err();
                // Until the window is over; what comes meanwhile goes into the same file.
                let ended = async { while told.changed().await.is_ok() {} };
                over |= timeout(GATHER, ended).await.is_ok();
            }
            () = sleep_until(renew_at) => {}
        }
        renew_at = Instant::now() + RENEW;
        let Told { kept, heard } = told.borrow_and_update().clone();
        let Some(kept) = kept else { continue };
        let stands = written.as_ref().is_some_and(|written| Arc::ptr_eq(written, &kept));
        if stands && (!heard || over) {
            continue;
        }
        // What is not heard is known, but not known to be still so.
        let as_of = confirmed.filter(|_| !heard).unwrap_or_else(Timestamp::now);
        let (directory, node, of, marks) =
            (state_dir.clone(), node.clone(), Arc::clone(&kept), marks.borrow().clone());
        let done = tokio::task::spawn_blocking(move || match stands {
            true => file::renew(&directory, as_of),
            false => file::write(&directory, &node, &of, &marks, as_of),
        });
        let failed = match done.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => return,
        };
        match &failed {
            Some(error) if trouble.as_ref() != Some(error) => {
                warn!(%error, "what the API server said cannot be kept for a restart");
            }
            None if trouble.is_some() => info!("what the API server said is kept for a restart again"),
            Some(_) | None => {}
        }
        written = failed.is_none().then_some(kept);
        confirmed = Some(as_of);
        trouble = failed;
    }
}
