//! A way into a network namespace: a port on the host's loopback whose connections continue inside.
//!
//! The listener is made before the thread enters the namespace, and a socket stays where it was made; so
//! one thread can hold both ends. Dropping the relay ends its thread and its connections.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub(super) struct Relay {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where `ip netns` keeps the namespace of that name.
pub(super) fn netns_path(netns: &str) -> String {
    format!("/run/netns/{netns}")
}

impl Relay {
    pub(super) fn start(netns: &str, target: SocketAddr) -> Result<Self> {
        let path = netns_path(netns);
        let namespace = File::open(&path).with_context(|| format!("no network namespace {path}"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (entered, answer) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            // The runtime has this one thread, so every socket it makes is inside.
            let runtime = setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?));
            match runtime {
                Ok(runtime) => {
                    let _ = entered.send(Ok(()));
                    runtime.block_on(relay(listener, target, stopped));
                }
                Err(error) => {
                    let _ = entered.send(Err(error));
                }
            }
        });
        answer
            .recv()
            .map_err(|_| anyhow!("the relay's thread is gone"))?
            .with_context(|| format!("cannot enter {path}"))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn relay(listener: TcpListener, target: SocketAddr, mut stopped: oneshot::Receiver<()>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((mut outside, _)) = accepted else { continue };
        tokio::spawn(async move {
            // Dropping `outside` tells the client that nobody is there, as a refusal would.
            if let Ok(mut inside) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
    }
}
