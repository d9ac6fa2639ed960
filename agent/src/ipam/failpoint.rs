//! Where a test has the agent die: at the point that `PLAINROUTE_FAILPOINT` names, by SIGKILL, as a machine dies that loses its power.
//! Only in builds with debug assertions; in a release there is nothing of it.

/// The step of an ADD that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// A claim is about to be sent.
    Claim,
    /// The API server has answered, and nothing came of it yet.
    Answered,
    /// The holder is about to be written down.
    Journal,
    /// It is written down.
    Journaled,
    /// The plan knows of it.
    Published,
    /// The reply was handed over.
    Replied,
}

#[cfg(debug_assertions)]
pub(super) fn reach(point: Point) {
    let named = std::env::var("PLAINROUTE_FAILPOINT");
    if named.is_ok_and(|name| name.eq_ignore_ascii_case(&format!("{point:?}"))) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn reach(_: Point) {}
