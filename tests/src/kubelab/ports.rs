//! Ports that this process alone hands out, each once.
use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

use super::random;

/// A port that is free at all of these addresses, below the ephemeral range, so that no outgoing connection takes it while
/// the server is down.
pub(super) fn free_port(addresses: &[IpAddr]) -> Result<u16> {
    static GIVEN: LazyLock<Mutex<BTreeSet<u16>>> = LazyLock::new(Mutex::default);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..200 {
        let port = 20_000 + (random() % 10_000) as u16;
        // Tests that run beside this one have not bound theirs yet.
        if !given.contains(&port) && addresses.iter().all(|address| is_free(*address, port)) {
            given.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port at {addresses:?}")
}

fn is_free(address: IpAddr, port: u16) -> bool {
    match TcpListener::bind((address, port)) {
        Ok(_) => true,
        // An address that only exists inside a namespace cannot be tried from here; any port will do.
        Err(error) => error.kind() == std::io::ErrorKind::AddrNotAvailable,
    }
}
