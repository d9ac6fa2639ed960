//! What the plugin and the agent say to each other: over a Unix socket, one connection a command, one line of JSON there and
//! one back. Either side may be the newer one, so fields that it does not know do not trouble it.
use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::error::code;

/// Where the agent listens unless the network configuration says otherwise.
pub const SOCKET: &str = "/run/plainroute/ipam.sock";
/// The version of [`Request`].
pub const VERSION: u32 = 1;
/// No line is longer, in octets: a GC names every sandbox of a node.
pub const LONGEST_LINE: usize = 4 << 20;

/// What the plugin asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The name of the CNI network: attachments of one are no business of another's GC.
    pub network: String,
    /// What is to be done.
    #[serde(flatten)]
    pub command: Command,
}

/// The CNI command, with what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
pub enum Command {
    /// Give addresses. Asked again for the same attachment, the answer is the same.
    Add {
        /// For what.
        #[serde(flatten)]
        attachment: Attachment,
        /// The Pod's network namespace.
        netns: String,
        /// For whom.
        #[serde(flatten)]
        pod: Pod,
    },
    /// Take them back. That there are none is no error.
    Del {
        /// From what.
        #[serde(flatten)]
        attachment: Attachment,
        /// The Pod's network namespace; it may be gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<String>,
        /// From whom, where the runtime says it.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        pod: Option<Pod>,
    },
    /// Tell which addresses are held.
    Check {
        /// By what.
        #[serde(flatten)]
        attachment: Attachment,
        /// The Pod's network namespace.
        netns: String,
        /// By whom, where the runtime says it.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        pod: Option<Pod>,
    },
    /// Every attachment of this network that there still is.
    Gc {
        /// Those.
        valid_attachments: Vec<Attachment>,
    },
    /// Tell whether an ADD could be served.
    Status,
}

/// One interface of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The sandbox.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface within.
    pub ifname: String,
}

/// The Pod, as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; old runtimes do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What the agent answers: `{"addresses":[{"address":"10.20.0.5"}]}` or `{"error":{"code":11,"message":"..."}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
pub enum Reply {
    /// Done. ADD and CHECK have the addresses that the attachment holds, one a family; the others have none.
    Addresses(Vec<IpAddr>),
    /// Not done.
    Refused(Failure),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A code of the CNI specification ([`code`]); never 0.
    pub code: u32,
    /// In a sentence.
    pub message: String,
    /// What else helps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// A [`Reply`] as it is written.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Held>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

#[derive(Serialize, Deserialize)]
struct Held {
    address: IpAddr,
}

impl Request {
    /// A request of this version.
    pub fn new(network: impl Into<String>, command: Command) -> Request {
        Request { version: VERSION, network: network.into(), command }
    }

    /// Reads what a plugin sent. What cannot be understood is answered with the failure.
    pub fn decode(line: &[u8]) -> Result<Request, Failure> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let undecodable = |error: serde_json::Error| Failure {
            code: code::DECODE,
            message: format!("the agent does not understand the request: {error}"),
            details: String::new(),
        };
        let Versioned { version } = serde_json::from_slice(line).map_err(undecodable)?;
        if version != VERSION {
            return Err(Failure {
                code: code::INCOMPATIBLE_VERSION,
                message: format!("the agent speaks version {VERSION} with plainroute-ipam, not {version}"),
                details: "let the node's plainroute-ipam be that of the agent's image".to_owned(),
            });
        }
        serde_json::from_slice(line).map_err(undecodable)
    }
}

impl TryFrom<Line> for Reply {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Reply, &'static str> {
        match line {
            Line { error: Some(failure), .. } if failure.code == 0 => Err("an error has the code 0"),
            Line { error: Some(failure), .. } => Ok(Reply::Refused(failure)),
            Line { addresses: Some(held), error: None } => {
                Ok(Reply::Addresses(held.into_iter().map(|held| held.address).collect()))
            }
            Line { addresses: None, error: None } => Err("it has neither `addresses` nor `error`"),
        }
    }
}

impl From<Reply> for Line {
    fn from(reply: Reply) -> Line {
        match reply {
            Reply::Addresses(addresses) => {
                let held = addresses.into_iter().map(|address| Held { address }).collect();
                Line { addresses: Some(held), error: None }
            }
            Reply::Refused(failure) => Line { addresses: None, error: Some(failure) },
        }
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sandbox {}", self.ifname, self.container_id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What goes over the socket is a contract between two programs of different versions.
    #[test]
    fn a_request_is_written_as_the_contract_says_and_read_back() {
        let attachment = || Attachment { container_id: "c1".into(), ifname: "eth0".into() };
        let pod = |uid: Option<&str>| Pod {
            namespace: "erp".into(),
            name: "db-0".into(),
            uid: uid.map(str::to_owned),
        };
        let cases = [
            (
                Command::Add { attachment: attachment(), netns: "/n".into(), pod: pod(Some("u")) },
                json!({ "command": "ADD", "containerID": "c1", "ifname": "eth0", "netns": "/n",
                        "namespace": "erp", "name": "db-0", "uid": "u" }),
            ),
            (
                Command::Del { attachment: attachment(), netns: None, pod: None },
                json!({ "command": "DEL", "containerID": "c1", "ifname": "eth0" }),
            ),
            (
                Command::Check { attachment: attachment(), netns: "/n".into(), pod: Some(pod(None)) },
                json!({ "command": "CHECK", "containerID": "c1", "ifname": "eth0", "netns": "/n",
                        "namespace": "erp", "name": "db-0" }),
            ),
            (
                Command::Gc { valid_attachments: vec![attachment()] },
                json!({ "command": "GC", "validAttachments": [{ "containerID": "c1", "ifname": "eth0" }] }),
            ),
            (Command::Status, json!({ "command": "STATUS" })),
        ];
        for (command, mut expected) in cases {
            expected["version"] = 1.into();
            expected["network"] = "pods".into();
            let request = Request::new("pods", command);
            let written = serde_json::to_vec(&request).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
            expected["later"] = "unknown".into();
            assert_eq!(Request::decode(expected.to_string().as_bytes()).unwrap(), request);
        }
    }

    #[test]
    fn another_version_is_told_before_anything_else_is_read() {
        let failure = Request::decode(br#"{"version":2,"command":"MOVE"}"#).unwrap_err();
        assert_eq!(failure.code, code::INCOMPATIBLE_VERSION);
        assert!(failure.message.contains("version 1") && failure.message.contains("not 2"), "{failure:?}");
        let failure = Request::decode(br#"{"version":1,"network":"n","command":"MOVE"}"#).unwrap_err();
        assert_eq!(failure.code, code::DECODE);
        assert!(failure.message.contains("MOVE"), "{failure:?}");
    }

    #[test]
    fn a_reply_is_addresses_or_an_error() {
        let read = |text: &str| serde_json::from_str::<Reply>(text).map_err(|error| error.to_string());
        let addresses = Reply::Addresses(vec!["10.20.0.5".parse().unwrap(), "fd00::5".parse().unwrap()]);
        let text = serde_json::to_string(&addresses).unwrap();
        assert_eq!(text, r#"{"addresses":[{"address":"10.20.0.5"},{"address":"fd00::5"}]}"#);
        assert_eq!(read(&text).unwrap(), addresses);
        let refused = read(r#"{"error":{"code":11,"message":"held"}}"#).unwrap();
        assert_eq!(
            refused,
            Reply::Refused(Failure { code: 11, message: "held".into(), details: String::new() })
        );
        assert!(read("{}").unwrap_err().contains("neither"));
        assert!(read(r#"{"error":{"code":0,"message":""}}"#).unwrap_err().contains("code 0"));
        assert!(read(r#"{"addresses":[{"address":"10.20.0.5/32"}]}"#).is_err());
    }
}
