//! Why the table could not be made, in words for an operator.
use std::{fmt, io};

use nix::errno::Errno;

use super::{diff::Change, netlink::Refusal};

/// Why a pass ended before its goal.
pub(super) enum Failure {
    Netlink(io::Error),
    Refused(Refusal, Option<Change>),
    Undesirable(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Netlink(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Undesirable(text) => f.write_str(text),
            Failure::Netlink(error) => f.write_str(&tell(error)),
            Failure::Refused(refusal, change) => f.write_str(&tell_refusal(refusal, change.as_ref())),
        }
    }
}

fn tell(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
            "the kernel has no netlink for netfilter (module nfnetlink)".to_owned()
        }
        // What nfnetlink answers for a part that it cannot load.
        Some(Errno::EINVAL | Errno::EOPNOTSUPP) => {
            format!("the kernel has no nf_tables (module nf_tables): {error}")
        }
        _ => format!("netlink failed: {error}"),
    }
}

fn tell_refusal(refusal: &Refusal, change: Option<&Change>) -> String {
    match (refusal.errno, change) {
        (Errno::EOPNOTSUPP, None) => {
            format!("the kernel has no nf_tables (module nf_tables): {refusal}")
        }
        (Errno::ENOENT | Errno::EOPNOTSUPP, Some(change @ (Change::AddRule(..) | Change::AddChain(..)))) => {
            format!(
                "the kernel refuses {change}: {refusal}; it may lack nft_ct, nft_fib_inet, nft_nat or nft_objref"
            )
        }
        (_, Some(change)) => format!("the kernel refuses {change}: {refusal}"),
        (_, None) => format!("the kernel refuses the transaction: {refusal}"),
    }
}
