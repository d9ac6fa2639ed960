//! The socket that `plainroute-ipam` asks: one request and one reply a connection, a line of JSON each.
use std::time::Duration;

use plainroute_cni::protocol::{Failure, LONGEST_LINE, Reply, Request};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{debug, warn};

/// How long the plugin may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request of the plugin and who waits for the answer.
pub(crate) struct Asked {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// Serves the socket until nobody takes requests any more.
pub(super) async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    while !asked.is_closed() {
        match listener.accept().await {
            Ok((connection, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(connection, asked).await {
                        debug!(%error, "a CNI plugin went away");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "a CNI plugin cannot be heard");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn converse(connection: UnixStream, asked: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (read, mut write) = connection.into_split();
    let mut line = Vec::new();
    let longest = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
    let mut read = BufReader::new(read.take(longest));
    timeout(PATIENCE, read.read_until(b'\n', &mut line)).await??;
    let reply = match Request::decode(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            let gone = Reply::Refused(Failure {
                code: plainroute_cni::error::code::TRY_AGAIN,
                message: "the agent is not ready to give addresses out".to_owned(),
                details: String::new(),
            });
            match asked.send(Asked { request, reply }).await {
                // Where the plugin gives up, its runtime follows with a DEL.
                Ok(()) => answer.await.unwrap_or(gone),
                Err(_) => gone,
            }
        }
        Err(failure) => Reply::Refused(failure),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    write.write_all(&line).await
}
