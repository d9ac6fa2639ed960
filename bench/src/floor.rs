//! The floor: what the same work costs with nothing to decide.
//!
//! Sending: the bytes are encoded beforehand and written to the socket in one go. Taking in: the bytes are cut into
//! prefixes, and each goes into a hash table with the number of its UPDATE. It knows no BGP beyond the OPEN exchange.
use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ahash::AHashMap;
use anyhow::{Result, ensure};
use clap::Args;

use crate::clock::Moment;
use crate::session::{Session, Turn};
use crate::site::{self, HOST};
use crate::wire::{self, Family, Numbering};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for one session and does the least.
#[derive(Args, Clone, Debug)]
pub(crate) struct Floor {
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,
    /// Connects to this host of the tool; else it waits.
    #[arg(long)]
    connect: Option<u8>,
    /// So many host routes are sent at once when the session is Established.
    #[arg(long, default_value_t = 0)]
    announce: u32,
    /// So many prefixes are taken in, and the moment of the last is told.
    #[arg(long, default_value_t = 0)]
    take_in: u32,
    /// They are counted and forgotten.
    #[arg(long)]
    refuse: bool,
    /// Each line on standard input says which host routes to `add` or `remove` then: from, to.
    #[arg(long)]
    changes: bool,
}

impl Floor {
    pub(crate) fn run(&self) -> Result<()> {
        let author = site::author(HOST);
        let prefixes = Numbering::hosts(self.family);
        let mut bytes = Vec::new();
        wire::announce(&author, prefixes, 0..self.announce, 0, &mut bytes);
        let mut held: AHashMap<(u8, u64), u64> =
            AHashMap::with_capacity(if self.refuse { 0 } else { self.take_in as usize });
        let stream = match self.connect {
            Some(host) => TcpStream::connect(SocketAddr::new(site::address(self.family, host), 179))?,
            None => {
                let listener = TcpListener::bind(SocketAddr::new(site::address(self.family, HOST), 179))?;
                println!("ready");
                listener.accept()?.0
            }
        };
        let mut writer = stream.try_clone()?;
        let mut next = 0;
        let mut keep = |length: u8, last: u64| {
            next += 1;
            if !self.refuse {
                held.insert((length, last), next);
            }
        };
        // The first prefixes may come with the KEEPALIVE.
        let mut session = Session::establish(stream, HOST, self.family, Turn::First, &mut keep)?;
        writer.write_all(&bytes)?;
        if self.take_in > 0 {
            let wanted = u64::from(self.take_in);
            let at = session
                .listen_until("all prefixes", PATIENCE, &mut keep, |counts| counts.announced >= wanted)?;
            ensure!(
                self.refuse || held.len() as u64 == wanted,
                "{} different prefixes instead of {wanted}",
                held.len()
            );
            println!("{}", at.0);
        }
        if self.changes {
            writer.set_nodelay(true)?;
            for line in std::io::stdin().lock().lines() {
                let line = line?;
                let words: Vec<&str> = line.split(' ').collect();
                let [what, from, to] = words[..] else { anyhow::bail!("what is `{line}`?") };
                let numbers = from.parse()?..to.parse()?;
                let mut bytes = Vec::new();
                match what {
                    "add" => wire::announce(&author, prefixes, numbers, 0, &mut bytes),
                    _ => wire::withdraw(prefixes, numbers, &mut bytes),
                }
                let begin = Moment::now();
                writer.write_all(&bytes)?;
                println!("{}", begin.0);
            }
        }
        // Ends with the tool, which has seen all that it wanted.
        std::io::stdin().lock().lines().for_each(drop);
        Ok(())
    }
}
