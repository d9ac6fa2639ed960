//! GoBGP's API, as far as adding and deleting host routes: gRPC over HTTP/2 on a Unix socket, with protobuf by hand.
//!
//! A call is sent without waiting for its answer; what is timed is when its UPDATE comes.
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::clock::Moment;
use crate::site::{HOST, router_id};
use crate::wire::Numbering;

/// A connection to gobgpd.
pub(crate) struct Grpc {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    pending: Vec<JoinHandle<Result<()>>>,
}

impl Grpc {
    pub(crate) fn connect(socket: &Path) -> Result<Grpc> {
        // The connection needs somebody who writes and reads while the tool waits for BGP.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (requests, connection) = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await?;
            anyhow::Ok(h2::client::handshake(stream).await?)
        })?;
        runtime.spawn(connection);
        Ok(Grpc { runtime, requests, pending: Vec::new() })
    }

    /// Adds one route by AddPath, several in one message of AddPathStream.
    pub(crate) fn add(&mut self, numbers: Range<u32>) -> Result<Moment> {
        let paths = numbers.map(|number| path(Numbering::Hosts4.v4(number)));
        let request: Vec<u8> = paths.flat_map(|path| field(3, &path)).collect();
        let call = if request.len() > 1_000 { "AddPathStream" } else { "AddPath" };
        self.call(call, &request)
    }

    /// Deletes one route.
    pub(crate) fn remove(&mut self, number: u32) -> Result<Moment> {
        // Family: AFI 1, SAFI 1.
        let request = [field(3, &[8, 1, 16, 1]), field(4, &path(Numbering::Hosts4.v4(number)))].concat();
        self.call("DeletePath", &request)
    }

    /// Waits until all that was sent is answered; an error of any is an error.
    pub(crate) fn answered(&mut self) -> Result<()> {
        for pending in std::mem::take(&mut self.pending) {
            self.runtime.block_on(pending)??;
        }
        Ok(())
    }

    fn call(&mut self, method: &str, request: &[u8]) -> Result<Moment> {
        let head = http::Request::post(format!("http://localhost/apipb.GobgpApi/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let length = u32::try_from(request.len())?.to_be_bytes();
        let body = Bytes::from([&[0][..], &length, request].concat());
        let begin = Moment::now();
        let (response, mut stream) = self.requests.send_request(head, false)?;
        stream.send_data(body, true)?;
        self.pending.push(self.runtime.spawn(async move {
            let mut body = response.await?.into_body();
            while let Some(data) = body.data().await {
                let count = data?.len();
                body.flow_control().release_capacity(count)?;
            }
            let trailers = body.trailers().await?.context("gobgpd gives no status")?;
            let status = trailers.get("grpc-status").context("gobgpd gives no status")?;
            ensure!(status == "0", "gobgpd refuses: {:?}", trailers.get("grpc-message"));
            Ok(())
        }));
        Ok(begin)
    }
}

/// `apipb.Path` of a host route: the prefix, ORIGIN, NEXT_HOP, the family.
fn path(address: Ipv4Addr) -> Vec<u8> {
    let prefix = [&[8, 32][..], &field(2, address.to_string().as_bytes())].concat();
    let next_hop = field(1, router_id(HOST).to_string().as_bytes());
    [
        field(1, &any("IPAddressPrefix", &prefix)),
        // IGP is 0, which protobuf leaves out.
        field(2, &any("OriginAttribute", &[])),
        field(2, &any("NextHopAttribute", &next_hop)),
        field(9, &[8, 1, 16, 1]),
    ]
    .concat()
}

fn any(kind: &str, value: &[u8]) -> Vec<u8> {
    [field(1, format!("type.googleapis.com/apipb.{kind}").as_bytes()), field(2, value)].concat()
}

/// A field with a length, as strings and messages have it.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_varints() {
        assert_eq!(field(2, b"ab"), [0x12, 2, b'a', b'b']);
        let long = field(3, &[7; 300]);
        assert_eq!((&long[..3], long.len()), (&[0x1a, 0xac, 0x02][..], 303));
    }
}
