//! A cable's worth of trouble: what our speaker and the router say to each other goes through here message by message, is
//! measured, and is lost on request. So both ends believe that the other was told what it never heard.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use plainroute_tests::netns::{Netns, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{DEADLINE, OUR_V4, ROUTER_V4};

/// Where our speaker meets the wire: an address beside its own.
pub(crate) const WIRE_V4: &str = "172.16.0.2";
pub(crate) const WIRE_PORT: u16 = 1790;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Towards {
    Router,
    Us,
}

/// What passed in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Passed {
    /// The next IPv4 withdrawals are lost.
    lose: bool,
    pub(crate) lost: usize,
    /// The longest message, in octets.
    pub(crate) longest: usize,
    /// The subtypes of the ROUTE-REFRESH messages (RFC 7313 section 3.2), in order.
    pub(crate) refreshes: Vec<u8>,
}

/// The wire, and what passed over it.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<[Passed; 2]>>);

impl Wire {
    /// Connects whoever comes to [`WIRE_V4`] to the router, from our own address.
    pub(crate) fn start(netns: &Netns) -> Wire {
        netns.address("eth0", &format!("{WIRE_V4}/24")).unwrap();
        let wire = Wire::default();
        let carried = wire.clone();
        let (listening, ready) = std::sync::mpsc::channel();
        netns.on_thread(move || async move {
            let listener = TcpListener::bind((WIRE_V4, WIRE_PORT)).await.unwrap();
            listening.send(()).unwrap();
            while let Ok((ours, _)) = listener.accept().await {
                // A router that refuses, or that we left, ends the connection on both sides.
                if let Ok(theirs) = to_router().await {
                    carried.carry(ours, theirs).await;
                }
            }
        });
        ready.recv().unwrap();
        wire
    }

    async fn carry(&self, ours: TcpStream, theirs: TcpStream) {
        let ((from_us, to_us), (from_router, to_router)) = (ours.into_split(), theirs.into_split());
        tokio::select! {
            () = self.pump(from_us, to_router, Towards::Router) => {}
            () = self.pump(from_router, to_us, Towards::Us) => {}
        }
    }

    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, towards: Towards) {
        loop {
            let mut message = vec![0; 19];
            if from.read_exact(&mut message).await.is_err() {
                return;
            }
            let length = usize::from(u16::from_be_bytes([message[16], message[17]]));
            message.resize(length.max(19), 0);
            if from.read_exact(&mut message[19..]).await.is_err() {
                return;
            }
            if self.note(towards, &message) && to.write_all(&message).await.is_err() {
                return;
            }
        }
    }

    /// Whether the message goes on.
    fn note(&self, towards: Towards, message: &[u8]) -> bool {
        let mut passed = self.0.lock().unwrap();
        let passed = &mut passed[towards as usize];
        passed.longest = passed.longest.max(message.len());
        match message {
            [.., _, subtype, _] if message[18] == 5 => passed.refreshes.push(*subtype),
            _ => {}
        }
        let withdraws = message[18] == 2 && message.get(19..21).is_some_and(|length| length != [0, 0]);
        let lost = passed.lose && withdraws;
        passed.lost += usize::from(lost);
        !lost
    }

    pub(crate) fn passed(&self, towards: Towards) -> Passed {
        self.0.lock().unwrap()[towards as usize].clone()
    }

    /// Loses the withdrawals that `cause` brings about, one at least.
    pub(crate) fn lose(&self, towards: Towards, cause: impl FnOnce()) {
        let before = self.passed(towards).lost;
        self.0.lock().unwrap()[towards as usize].lose = true;
        cause();
        self.await_passed(towards, "a lost withdrawal", |passed| passed.lost > before);
        self.0.lock().unwrap()[towards as usize].lose = false;
    }

    pub(crate) fn await_passed(&self, towards: Towards, what: &str, condition: impl Fn(&Passed) -> bool) {
        wait_until(&format!("{what} towards {towards:?}"), DEADLINE, || {
            let passed = self.passed(towards);
            if condition(&passed) { Ok(()) } else { Err(format!("{passed:?}")) }
        })
        .unwrap();
    }
}

async fn to_router() -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let address = |text: &str, port| SocketAddr::from((text.parse::<Ipv4Addr>().expect("an address"), port));
    socket.set_reuseaddr(true)?;
    socket.bind(address(OUR_V4, 0))?;
    socket.connect(address(ROUTER_V4, 179)).await
}
