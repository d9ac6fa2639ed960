//! Asks the agent: one HTTP request over its Unix socket.
use std::{io, path::Path};

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Asked;

/// The answer to `path`, parsed. A socket that accepts and then says nothing belongs to an agent that hangs, so
/// patience has an end.
pub(super) fn ask<T: DeserializeOwned>(asked: &Asked, path: &str) -> anyhow::Result<T> {
    tell(asked, Method::GET, path)
}

/// As [`ask`], by another method: one that changes something.
pub(super) fn tell<T: DeserializeOwned>(asked: &Asked, method: Method, path: &str) -> anyhow::Result<T> {
    let (socket, patience) = (asked.socket.as_path(), asked.patience);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(patience, fetch(socket, method, path))
            .await
            .map_err(|_| anyhow!("the agent on {} did not answer within {patience:?}", socket.display()))?
    })?;
    serde_json::from_slice(&answer).with_context(|| {
        format!("the agent on {} answered {path} in a form that this version does not know", socket.display())
    })
}

async fn fetch(socket: &Path, method: Method, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.map_err(|error| no_agent(socket, &error))?;
    let (status, body) = exchange(stream, method, path)
        .await
        .with_context(|| format!("who answers on {} does not speak like an agent", socket.display()))?;
    match String::from_utf8_lossy(&body).trim() {
        _ if status.is_success() => Ok(body),
        "" => bail!("the agent on {} answered {path} with {status}", socket.display()),
        message => bail!("{message}"),
    }
}

async fn exchange(stream: UnixStream, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "plainroute")
        .body(Empty::<Bytes>::new())?;
    // It ends with the runtime; an error of the connection shows up as one of the request.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
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
