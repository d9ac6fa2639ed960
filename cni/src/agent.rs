//! The one connection to the agent.
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    error::{Error, code},
    protocol::{LONGEST_LINE, Reply, Request},
};

/// Asks the agent on that socket, which has so long for everything: to take the connection, to read and to answer.
pub fn ask(socket: &Path, request: &Request, patience: Duration) -> Result<Reply, Error> {
    let (answer, answered) = mpsc::channel();
    // Of a Unix socket neither `connect` nor a reply that comes octet by octet has a deadline, so another thread waits.
    let (path, line) = (socket.to_owned(), serde_json::to_vec(request));
    thread::spawn(move || {
        // Whoever waits may have given up.
        let _ = answer.send(line.map_err(io::Error::from).and_then(|line| exchange(&path, line)));
    });
    let socket = socket.display();
    let line = match answered.recv_timeout(patience) {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => {
            return Err(Error::new(
                code::TRY_AGAIN,
                format!("the Plainroute agent does not answer on {socket}: {error}"),
            )
            .with("is the agent of this node running, with `ipam` in force? `plainroute check` tells"));
        }
        Err(_) => {
            let message = format!("the Plainroute agent on {socket} did not answer within {patience:?}");
            return Err(Error::new(code::TRY_AGAIN, message));
        }
    };
    serde_json::from_slice(&line).map_err(|error| {
        let said: String = String::from_utf8_lossy(&line).chars().take(200).collect();
        Error::new(code::DECODE, format!("the agent's reply on {socket} makes no sense: {error}"))
            .with(format!("it begins with: {said}"))
    })
}

fn exchange(socket: &Path, mut line: Vec<u8>) -> io::Result<Vec<u8>> {
    line.push(b'\n');
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&line)?;
    let mut reply = Vec::new();
    BufReader::new(stream).take(LONGEST_LINE as u64).read_until(b'\n', &mut reply)?;
    match reply.pop() {
        Some(b'\n') => Ok(reply),
        Some(_) => Err(io::Error::other("its reply is cut off")),
        None => Err(io::Error::other("it closed the connection without a word")),
    }
}
