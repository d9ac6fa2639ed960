//! The network configuration, which the runtime gives on standard input (CNI specification, section 1): what of it is ours.
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

use crate::{
    environment::is_name,
    error::{Error, code},
    protocol::{Attachment, SOCKET},
    version::Version,
};

/// How long the agent has for an answer unless the configuration says otherwise.
const PATIENCE_SECONDS: u64 = 30;
/// The kubelet gives a sandbox four minutes.
const LONGEST_PATIENCE_SECONDS: u64 = 240;
/// The fields of `ipam` that there are.
const KNOWN: [&str; 4] = ["type", "socket", "gateway", "timeoutSeconds"];

/// A network configuration.
#[derive(Clone, Debug)]
pub struct Network {
    /// In which version the runtime wants its answer.
    pub version: Version,
    /// The network's name.
    pub name: String,
    document: Map<String, Value>,
}

/// The gateway of each family: the node's side of each Pod's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    v4: IpAddr,
    v6: IpAddr,
}

impl Default for Gateways {
    fn default() -> Self {
        Gateways { v4: [169, 254, 1, 1].into(), v6: [0xfe80, 0, 0, 0, 0, 0, 0, 1].into() }
    }
}

impl Gateways {
    /// The one of the address's family.
    pub fn of(&self, address: IpAddr) -> IpAddr {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

impl Network {
    /// Reads it; what is of no interest to the command at hand is not looked at.
    pub fn read(input: &[u8]) -> Result<Network, Error> {
        let document = object(input)?;
        let version = match text(&document, "cniVersion")? {
            None => return Err(incompatible("cniVersion is missing".to_owned())),
            Some(text) => Version::named(text)
                .ok_or_else(|| incompatible(format!("cniVersion: {text} is not spoken here")))?,
        };
        let name = text(&document, "name")?.ok_or_else(|| invalid("name", "is missing"))?.to_owned();
        is_name(&name).map_err(|why| invalid("name", &format!("`{name}` {why}")))?;
        Ok(Network { version, name, document })
    }

    /// What `cniVersion` asks for, as far as that can be told.
    pub fn version_of(input: &[u8]) -> Option<Version> {
        Version::named(object(input).ok()?.get("cniVersion")?.as_str()?)
    }

    /// Refuses fields of `ipam` that nobody reads: most often they are misspelt ones.
    pub fn check_fields(&self) -> Result<(), Error> {
        let unknown = self.ipam()?.keys().find(|key| !KNOWN.contains(&key.as_str()));
        match unknown {
            None => Ok(()),
            Some(key) => {
                Err(invalid(&format!("ipam.{key}"), &format!("is not known; there are {}", KNOWN.join(", "))))
            }
        }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> Result<PathBuf, Error> {
        let path = PathBuf::from(text(self.ipam()?, "ipam.socket")?.unwrap_or(SOCKET));
        if path.is_absolute() {
            return Ok(path);
        }
        Err(invalid("ipam.socket", &format!("`{}` is not an absolute path", path.display())))
    }

    /// How long the agent has for an answer.
    pub fn patience(&self) -> Result<Duration, Error> {
        let field = "ipam.timeoutSeconds";
        let Some(value) = member(self.ipam()?, field) else {
            return Ok(Duration::from_secs(PATIENCE_SECONDS));
        };
        let seconds = value.as_u64().filter(|seconds| (1..=LONGEST_PATIENCE_SECONDS).contains(seconds));
        seconds.map(Duration::from_secs).ok_or_else(|| {
            invalid(field, &format!("{value} is not a number from 1 to {LONGEST_PATIENCE_SECONDS}"))
        })
    }

    /// `ipam.gateway`: an address, or one of each family.
    pub fn gateways(&self) -> Result<Gateways, Error> {
        let field = "ipam.gateway";
        let mut gateways = Gateways::default();
        let said = match member(self.ipam()?, field) {
            None => return Ok(gateways),
            Some(Value::Array(several)) => several.iter().collect(),
            Some(one) => vec![one],
        };
        let mut families = BTreeSet::new();
        for value in said {
            let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
            let usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
            let Some(address) = address.filter(usable) else {
                return Err(invalid(field, &format!("{value} is not the address of a gateway")));
            };
            if !families.insert(address.is_ipv4()) {
                return Err(invalid(field, "has two addresses of a family"));
            }
            *(if address.is_ipv4() { &mut gateways.v4 } else { &mut gateways.v6 }) = address;
        }
        Ok(gateways)
    }

    /// GC: the attachments that there still are. A configuration without them says nothing of the kind.
    pub fn valid_attachments(&self) -> Result<Vec<Attachment>, Error> {
        let field = "cni.dev/valid-attachments";
        match self.document.get(field) {
            None => Err(invalid(field, "is missing; without it nothing can be told to be garbage")),
            Some(Value::Null) => Ok(Vec::new()),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|error| invalid(field, &format!("is not a list of attachments: {error}"))),
        }
    }

    /// CHECK: the addresses that the attachment had at its ADD.
    pub fn previous_addresses(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let result = match self.document.get("prevResult") {
            None | Some(Value::Null) => {
                return Err(invalid("prevResult", "is missing, and CHECK is about it"));
            }
            Some(result) => result,
        };
        let of = |place: usize, ip: &Value| {
            let text = ip.get("address").and_then(Value::as_str).unwrap_or_default();
            let (address, _) = text.split_once('/').unwrap_or((text, ""));
            let field = format!("prevResult.ips[{place}].address");
            address.parse().map_err(|_| invalid(&field, &format!("`{text}` is not an address with a length")))
        };
        let none = Vec::new();
        let ips = result.get("ips").and_then(Value::as_array).unwrap_or(&none);
        ips.iter().enumerate().map(|(place, ip)| of(place, ip)).collect()
    }

    fn ipam(&self) -> Result<&Map<String, Value>, Error> {
        match self.document.get("ipam") {
            None => Err(invalid("ipam", "is missing")),
            Some(Value::Object(ipam)) => Ok(ipam),
            Some(_) => Err(invalid("ipam", "is no object")),
        }
    }
}

fn object(input: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(input).map_err(|error| {
        Error::new(code::DECODE, format!("the network configuration is no JSON object: {error}"))
    })
}

/// The member that the last word of `field` names; `null` is none.
fn member<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    let key = field.rsplit_once('.').map_or(field, |(_, key)| key);
    object.get(key).filter(|value| !value.is_null())
}

fn text<'a>(object: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Error> {
    match member(object, field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(field, &format!("{other} is not a text"))),
    }
}

fn invalid(field: &str, why: &str) -> Error {
    Error::new(code::INVALID_CONFIG, format!("network configuration: {field} {why}"))
}

fn incompatible(message: String) -> Error {
    Error::new(code::INCOMPATIBLE_VERSION, format!("network configuration: {message}"))
        .with(format!("known are {}", Version::list()))
}
