//! Many objects at once: written into etcd, beside the API server, which learns of them by its own watch of etcd.
//!
//! By its API a hundred thousand Pods take minutes, and what agents then see of them is the same. Admission and
//! validation see nothing of them, so objects of which a test claims anything go by the API.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{ApiServer, relay};

/// Within what etcd takes in one transaction (128 operations, 1.5 MB).
const TOGETHER: usize = 64;

impl ApiServer {
    /// Stores objects as they are, by their keys below `/registry`, for instance `pods/NAMESPACE/NAME`.
    pub fn store(&self, objects: impl IntoIterator<Item = (String, Value)> + Send) -> Result<()> {
        let port = self.etcd.port;
        let store = move || {
            let mut objects = objects.into_iter().peekable();
            while objects.peek().is_some() {
                let puts: Vec<Value> =
                    objects.by_ref().take(TOGETHER).map(|(key, object)| put(&key, &object)).collect();
                transaction(port, &json!({ "success": puts }).to_string())?;
            }
            Ok(())
        };
        match &self.options.netns {
            Some(netns) => crate::netns::within(Path::new(&relay::netns_path(netns)), store),
            None => store(),
        }
    }
}

fn put(key: &str, object: &Value) -> Value {
    let key = ByteString(format!("/registry/{key}").into_bytes());
    json!({ "requestPut": { "key": key, "value": ByteString(object.to_string().into_bytes()) } })
}

/// One transaction, by etcd's gateway from HTTP.
fn transaction(port: u16, body: &str) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("cannot reach etcd")?;
    write!(
        stream,
        "POST /v3/kv/txn HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"succeeded\":true"),
        "etcd refused {} octets: {answer}",
        body.len()
    );
    Ok(())
}
