//! Asks the agent: one HTTP request over its Unix socket.
use std::{io, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// A socket that accepts and then says nothing belongs to an agent that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The answer to `path`, parsed.
pub(super) fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, fetch(socket, path))
            .await
            .map_err(|_| anyhow!("the agent on {} did not answer within {PATIENCE:?}", socket.display()))?
    })?;
    serde_json::from_slice(&answer).with_context(|| {
        format!("the agent on {} answered {path} in a form that this version does not know", socket.display())
    })
}

async fn fetch(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.map_err(|error| no_agent(socket, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(hyper::header::HOST, "plainroute").body(Empty::<Bytes>::new())?;
    // It ends with the runtime; an error of the connection shows up as one of the request.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}

fn no_agent(socket: &Path, error: &io::Error) -> anyhow::Error {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("no agent runs here: {path} does not exist (give its spec.adminSocket with --socket)")
        }
        io::ErrorKind::ConnectionRefused => {
            anyhow!("the agent of {path} has ended: nobody answers on its socket")
        }
        io::ErrorKind::PermissionDenied => anyhow!("{path} is root's: run this as root"),
        _ => anyhow!("cannot reach the agent on {path}: {error}"),
    }
}
